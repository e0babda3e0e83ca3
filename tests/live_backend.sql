-- The tables of a live backend, with its indexes, before stackctl has touched them: no triggers, no functions.

CREATE TYPE "BooleanTrue" AS ENUM ('TRUE');
CREATE TYPE "ContactChannelType" AS ENUM ('EMAIL');
CREATE TYPE "CustomerType" AS ENUM ('USER', 'TEAM', 'CUSTOM');
CREATE TYPE "EmailOutboxCreatedWith" AS ENUM ('DRAFT', 'PROGRAMMATIC_CALL');
CREATE TYPE "EmailOutboxSimpleStatus" AS ENUM ('IN_PROGRESS', 'ERROR', 'OK');
CREATE TYPE "EmailOutboxSkippedReason" AS ENUM (
  'USER_UNSUBSCRIBED', 'USER_ACCOUNT_DELETED', 'USER_HAS_NO_PRIMARY_EMAIL', 'NO_EMAIL_PROVIDED',
  'LIKELY_NOT_DELIVERABLE', 'MANUALLY_CANCELLED'
);
CREATE TYPE "EmailOutboxStatus" AS ENUM (
  'PAUSED', 'PREPARING', 'RENDERING', 'RENDER_ERROR', 'SCHEDULED', 'QUEUED', 'SENDING', 'SERVER_ERROR',
  'SENT', 'SKIPPED', 'DELIVERY_DELAYED', 'BOUNCED', 'OPENED', 'CLICKED', 'MARKED_AS_SPAM'
);
CREATE TYPE "PurchaseCreationSource" AS ENUM ('PURCHASE_PAGE', 'TEST_MODE', 'API_GRANT');
CREATE TYPE "SubscriptionStatus" AS ENUM (
  'active', 'trialing', 'canceled', 'paused', 'incomplete', 'incomplete_expired', 'past_due', 'unpaid'
);
CREATE TYPE "VerificationCodeType" AS ENUM (
  'ONE_TIME_PASSWORD', 'CONTACT_CHANNEL_VERIFICATION', 'PASSWORD_RESET', 'TEAM_INVITATION', 'MFA_ATTEMPT',
  'PASSKEY_REGISTRATION_CHALLENGE', 'PASSKEY_AUTHENTICATION_CHALLENGE', 'INTEGRATION_PROJECT_TRANSFER',
  'PURCHASE_URL'
);

CREATE SEQUENCE global_seq_id AS bigint START WITH 1 INCREMENT BY 11;

CREATE TABLE "Project" (
  "id" text NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "displayName" text NOT NULL,
  "description" text NOT NULL DEFAULT ''::text,
  "isProductionMode" boolean NOT NULL,
  "projectConfigOverride" jsonb,
  "logoUrl" text,
  "logoFullUrl" text,
  "ownerTeamId" uuid,
  "stripeAccountId" text,
  "logoDarkModeUrl" text,
  "logoFullDarkModeUrl" text,
  "onboardingStatus" text NOT NULL DEFAULT 'completed'::text,
  CONSTRAINT "Project_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "Project_onboardingStatus_valid" CHECK (("onboardingStatus" = ANY (ARRAY['config_choice'::text, 'apps_selection'::text, 'auth_setup'::text, 'domain_setup'::text, 'email_theme_setup'::text, 'payments_setup'::text, 'welcome'::text, 'completed'::text])))
);
CREATE TABLE "Tenancy" (
  "id" uuid NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "projectId" text NOT NULL,
  "branchId" text NOT NULL,
  "organizationId" uuid,
  "hasNoOrganization" "BooleanTrue",
  "emailCapacityBoostExpiresAt" timestamp(3),
  CONSTRAINT "Tenancy_pkey" PRIMARY KEY ("id")
);
CREATE TABLE "BranchConfigOverride" (
  "projectId" text NOT NULL,
  "branchId" text NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "config" jsonb NOT NULL,
  "source" jsonb,
  CONSTRAINT "BranchConfigOverride_pkey" PRIMARY KEY ("projectId", "branchId")
);
CREATE TABLE "EnvironmentConfigOverride" (
  "projectId" text NOT NULL,
  "branchId" text NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "config" jsonb NOT NULL,
  CONSTRAINT "EnvironmentConfigOverride_pkey" PRIMARY KEY ("projectId", "branchId")
);
CREATE TABLE "ProjectUser" (
  "projectUserId" uuid NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "profileImageUrl" text,
  "displayName" text,
  "serverMetadata" jsonb,
  "clientMetadata" jsonb,
  "requiresTotpMfa" boolean NOT NULL DEFAULT false,
  "totpSecret" bytea,
  "clientReadOnlyMetadata" jsonb,
  "tenancyId" uuid NOT NULL,
  "mirroredBranchId" text NOT NULL,
  "mirroredProjectId" text NOT NULL,
  "isAnonymous" boolean NOT NULL DEFAULT false,
  "projectId" text,
  "sequenceId" bigint,
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  "lastActiveAt" timestamp(3) NOT NULL DEFAULT now(),
  "restrictedByAdmin" boolean NOT NULL DEFAULT false,
  "restrictedByAdminReason" text,
  "restrictedByAdminPrivateDetails" text,
  "signUpRiskScoreBot" smallint NOT NULL DEFAULT 0,
  "signUpRiskScoreFreeTrialAbuse" smallint NOT NULL DEFAULT 0,
  "signUpCountryCode" text,
  "signedUpAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "signUpIp" text,
  "signUpIpTrusted" boolean,
  "signUpEmailNormalized" text,
  "signUpEmailBase" text,
  CONSTRAINT "ProjectUser_pkey" PRIMARY KEY ("tenancyId", "projectUserId"),
  CONSTRAINT "ProjectUser_restricted_by_admin_consistency" CHECK ((("restrictedByAdmin" = true)
    OR (("restrictedByAdmin" = false)
    AND ("restrictedByAdminReason" IS NULL)
    AND ("restrictedByAdminPrivateDetails" IS NULL)))),
  CONSTRAINT "ProjectUser_risk_score_bot_range" CHECK ((("signUpRiskScoreBot" >= 0) AND ("signUpRiskScoreBot" <= 100))),
  CONSTRAINT "ProjectUser_risk_score_free_trial_abuse_range" CHECK ((("signUpRiskScoreFreeTrialAbuse" >= 0) AND ("signUpRiskScoreFreeTrialAbuse" <= 100))),
  CONSTRAINT "ProjectUser_signedUpAt_not_null" CHECK (("signedUpAt" IS NOT NULL))
);
CREATE TABLE "ContactChannel" (
  "id" uuid NOT NULL,
  "projectUserId" uuid NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "type" "ContactChannelType" NOT NULL,
  "isPrimary" "BooleanTrue",
  "isVerified" boolean NOT NULL,
  "value" text NOT NULL,
  "usedForAuth" "BooleanTrue",
  "tenancyId" uuid NOT NULL,
  "sequenceId" bigint,
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  CONSTRAINT "ContactChannel_pkey" PRIMARY KEY ("tenancyId", "projectUserId", "id")
);
CREATE TABLE "Team" (
  "teamId" uuid NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "displayName" text NOT NULL,
  "profileImageUrl" text,
  "clientMetadata" jsonb,
  "clientReadOnlyMetadata" jsonb,
  "serverMetadata" jsonb,
  "tenancyId" uuid NOT NULL,
  "mirroredBranchId" text NOT NULL,
  "mirroredProjectId" text NOT NULL,
  "sequenceId" bigint,
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  CONSTRAINT "Team_pkey" PRIMARY KEY ("tenancyId", "teamId")
);
CREATE TABLE "TeamMember" (
  "projectUserId" uuid NOT NULL,
  "teamId" uuid NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "isSelected" "BooleanTrue",
  "displayName" text,
  "profileImageUrl" text,
  "tenancyId" uuid NOT NULL,
  "sequenceId" bigint,
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  CONSTRAINT "TeamMember_pkey" PRIMARY KEY ("tenancyId", "projectUserId", "teamId")
);
CREATE TABLE "TeamMemberDirectPermission" (
  "projectUserId" uuid NOT NULL,
  "teamId" uuid NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "id" uuid NOT NULL,
  "tenancyId" uuid NOT NULL,
  "permissionId" text NOT NULL,
  "sequenceId" bigint,
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  CONSTRAINT "TeamMemberDirectPermission_pkey" PRIMARY KEY ("id")
);
CREATE TABLE "ProjectUserDirectPermission" (
  "id" uuid NOT NULL,
  "tenancyId" uuid NOT NULL,
  "projectUserId" uuid NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "permissionId" text NOT NULL,
  "sequenceId" bigint,
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  CONSTRAINT "ProjectUserDirectPermission_pkey" PRIMARY KEY ("id")
);
CREATE TABLE "UserNotificationPreference" (
  "id" uuid NOT NULL,
  "tenancyId" uuid NOT NULL,
  "projectUserId" uuid NOT NULL,
  "notificationCategoryId" uuid NOT NULL,
  "enabled" boolean NOT NULL,
  "sequenceId" bigint,
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  CONSTRAINT "UserNotificationPreference_pkey" PRIMARY KEY ("tenancyId", "id")
);
CREATE TABLE "VerificationCode" (
  "projectId" text NOT NULL,
  "id" uuid NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "type" "VerificationCodeType" NOT NULL,
  "code" text NOT NULL,
  "expiresAt" timestamp(3) NOT NULL,
  "usedAt" timestamp(3),
  "redirectUrl" text,
  "data" jsonb NOT NULL,
  "method" jsonb NOT NULL DEFAULT 'null'::jsonb,
  "attemptCount" integer NOT NULL DEFAULT 0,
  "branchId" text NOT NULL,
  "sequenceId" bigint,
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  CONSTRAINT "VerificationCode_pkey" PRIMARY KEY ("projectId", "branchId", "id")
);
CREATE TABLE "EmailOutbox" (
  "tenancyId" uuid NOT NULL,
  "id" uuid NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "tsxSource" text NOT NULL,
  "themeId" text,
  "isHighPriority" boolean NOT NULL,
  "to" jsonb NOT NULL,
  "overrideSubject" text,
  "overrideNotificationCategoryId" text,
  "renderedIsTransactional" boolean,
  "renderedNotificationCategoryId" text,
  "extraRenderVariables" jsonb NOT NULL,
  "createdWith" "EmailOutboxCreatedWith" NOT NULL,
  "emailDraftId" text,
  "emailProgrammaticCallTemplateId" text,
  "shouldSkipDeliverabilityCheck" boolean NOT NULL,
  "priority" integer NOT NULL GENERATED ALWAYS AS (( CASE
    WHEN "isHighPriority" THEN 100 ELSE 0 END + CASE
    WHEN "renderedIsTransactional" THEN 10 ELSE 0 END)) STORED,
  "isPaused" boolean NOT NULL DEFAULT false,
  "renderedByWorkerId" uuid,
  "startedRenderingAt" timestamp(3),
  "finishedRenderingAt" timestamp(3),
  "renderErrorExternalMessage" text,
  "renderErrorExternalDetails" jsonb,
  "renderErrorInternalMessage" text,
  "renderErrorInternalDetails" jsonb,
  "renderedHtml" text,
  "renderedText" text,
  "renderedSubject" text,
  "scheduledAt" timestamp(3) NOT NULL,
  "isQueued" boolean NOT NULL DEFAULT false,
  "scheduledAtIfNotYetQueued" timestamp(3) GENERATED ALWAYS AS (CASE
    WHEN "isQueued" THEN NULL::timestamp without time zone ELSE "scheduledAt" END) STORED,
  "startedSendingAt" timestamp(3),
  "finishedSendingAt" timestamp(3),
  "sentAt" timestamp(3) GENERATED ALWAYS AS (CASE
    WHEN ("canHaveDeliveryInfo" IS TRUE) THEN "deliveredAt"
    WHEN ("canHaveDeliveryInfo" IS FALSE) THEN "finishedSendingAt" ELSE NULL::timestamp without time zone END) STORED,
  "sendServerErrorExternalMessage" text,
  "sendServerErrorExternalDetails" jsonb,
  "sendServerErrorInternalMessage" text,
  "sendServerErrorInternalDetails" jsonb,
  "skippedReason" "EmailOutboxSkippedReason",
  "canHaveDeliveryInfo" boolean,
  "deliveredAt" timestamp(3),
  "deliveryDelayedAt" timestamp(3),
  "bouncedAt" timestamp(3),
  "openedAt" timestamp(3),
  "clickedAt" timestamp(3),
  "unsubscribedAt" timestamp(3),
  "markedAsSpamAt" timestamp(3),
  "skippedDetails" jsonb,
  "status" "EmailOutboxStatus" NOT NULL GENERATED ALWAYS AS (CASE
    WHEN "isPaused" THEN 'PAUSED'::"EmailOutboxStatus"
    WHEN ("skippedReason" IS NOT NULL) THEN 'SKIPPED'::"EmailOutboxStatus"
    WHEN ("startedRenderingAt" IS NULL) THEN 'PREPARING'::"EmailOutboxStatus"
    WHEN ("finishedRenderingAt" IS NULL) THEN 'RENDERING'::"EmailOutboxStatus"
    WHEN ("renderErrorExternalMessage" IS NOT NULL) THEN 'RENDER_ERROR'::"EmailOutboxStatus"
    WHEN (("startedSendingAt" IS NULL) AND ("isQueued" IS FALSE)) THEN 'SCHEDULED'::"EmailOutboxStatus"
    WHEN ("startedSendingAt" IS NULL) THEN 'QUEUED'::"EmailOutboxStatus"
    WHEN ("finishedSendingAt" IS NULL) THEN 'SENDING'::"EmailOutboxStatus"
    WHEN (("canHaveDeliveryInfo" IS TRUE) AND ("deliveredAt" IS NULL)) THEN 'SENDING'::"EmailOutboxStatus"
    WHEN ("sendServerErrorExternalMessage" IS NOT NULL) THEN 'SERVER_ERROR'::"EmailOutboxStatus"
    WHEN ("canHaveDeliveryInfo" IS FALSE) THEN 'SENT'::"EmailOutboxStatus"
    WHEN ("markedAsSpamAt" IS NOT NULL) THEN 'MARKED_AS_SPAM'::"EmailOutboxStatus"
    WHEN ("clickedAt" IS NOT NULL) THEN 'CLICKED'::"EmailOutboxStatus"
    WHEN ("openedAt" IS NOT NULL) THEN 'OPENED'::"EmailOutboxStatus"
    WHEN ("bouncedAt" IS NOT NULL) THEN 'BOUNCED'::"EmailOutboxStatus"
    WHEN ("deliveryDelayedAt" IS NOT NULL) THEN 'DELIVERY_DELAYED'::"EmailOutboxStatus" ELSE 'SENT'::"EmailOutboxStatus" END) STORED,
  "simpleStatus" "EmailOutboxSimpleStatus" NOT NULL GENERATED ALWAYS AS (CASE
    WHEN ("skippedReason" IS NOT NULL) THEN 'OK'::"EmailOutboxSimpleStatus"
    WHEN (("renderErrorExternalMessage" IS NOT NULL) OR ("sendServerErrorExternalMessage" IS NOT NULL) OR ("bouncedAt" IS NOT NULL)) THEN 'ERROR'::"EmailOutboxSimpleStatus"
    WHEN (("finishedSendingAt" IS NOT NULL) AND (("canHaveDeliveryInfo" IS FALSE) OR ("deliveredAt" IS NOT NULL))) THEN 'OK'::"EmailOutboxSimpleStatus"
    WHEN (("finishedSendingAt" IS NULL) OR (("canHaveDeliveryInfo" IS TRUE) AND ("deliveredAt" IS NULL))) THEN 'IN_PROGRESS'::"EmailOutboxSimpleStatus" ELSE 'OK'::"EmailOutboxSimpleStatus" END) STORED,
  "sendRetries" integer NOT NULL DEFAULT 0,
  "nextSendRetryAt" timestamp(3),
  "sendAttemptErrors" jsonb,
  "sequenceId" bigint,
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  CONSTRAINT "EmailOutbox_pkey" PRIMARY KEY ("tenancyId", "id")
);
CREATE TABLE "ProjectUserRefreshToken" (
  "projectUserId" uuid NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "refreshToken" text NOT NULL,
  "expiresAt" timestamp(3),
  "tenancyId" uuid NOT NULL,
  "id" uuid NOT NULL,
  "isImpersonation" boolean NOT NULL DEFAULT false,
  "lastActiveAt" timestamp(3) NOT NULL DEFAULT now(),
  "lastActiveAtIpInfo" jsonb,
  "sequenceId" bigint,
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  CONSTRAINT "ProjectUserRefreshToken_pkey" PRIMARY KEY ("tenancyId", "id")
);
CREATE TABLE "ProjectUserOAuthAccount" (
  "projectUserId" uuid,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "email" text,
  "providerAccountId" text NOT NULL,
  "tenancyId" uuid NOT NULL,
  "configOAuthProviderId" text NOT NULL,
  "allowConnectedAccounts" boolean NOT NULL DEFAULT true,
  "allowSignIn" boolean NOT NULL DEFAULT true,
  "id" uuid NOT NULL,
  "sequenceId" bigint,
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  CONSTRAINT "ProjectUserOAuthAccount_pkey" PRIMARY KEY ("tenancyId", "id")
);
CREATE TABLE "DeletedRow" (
  "id" uuid NOT NULL,
  "tenancyId" uuid NOT NULL,
  "tableName" text NOT NULL,
  "sequenceId" bigint,
  "primaryKey" jsonb NOT NULL,
  "data" jsonb,
  "deletedAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "startedFulfillingAt" timestamp(3),
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  CONSTRAINT "DeletedRow_pkey" PRIMARY KEY ("id")
);
CREATE TABLE "OutgoingRequest" (
  "id" uuid NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "deduplicationKey" text,
  "qstashOptions" jsonb NOT NULL,
  "startedFulfillingAt" timestamp(3),
  CONSTRAINT "OutgoingRequest_pkey" PRIMARY KEY ("id")
);
CREATE TABLE "ExternalDbSyncMetadata" (
  "id" text NOT NULL DEFAULT gen_random_uuid(),
  "singleton" "BooleanTrue" NOT NULL DEFAULT 'TRUE'::"BooleanTrue",
  "sequencerEnabled" boolean NOT NULL DEFAULT true,
  "pollerEnabled" boolean NOT NULL DEFAULT true,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  CONSTRAINT "ExternalDbSyncMetadata_pkey" PRIMARY KEY ("id")
);
CREATE TABLE "Subscription" (
  "id" uuid NOT NULL,
  "tenancyId" uuid NOT NULL,
  "customerId" text NOT NULL,
  "customerType" "CustomerType" NOT NULL,
  "product" jsonb NOT NULL,
  "stripeSubscriptionId" text,
  "status" "SubscriptionStatus" NOT NULL,
  "currentPeriodEnd" timestamp(3) NOT NULL,
  "currentPeriodStart" timestamp(3) NOT NULL,
  "cancelAtPeriodEnd" boolean NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "creationSource" "PurchaseCreationSource" NOT NULL,
  "quantity" integer NOT NULL DEFAULT 1,
  "productId" text,
  "priceId" text,
  "refundedAt" timestamp(3),
  "endedAt" timestamp(3),
  "canceledAt" timestamp(3),
  CONSTRAINT "Subscription_pkey" PRIMARY KEY ("tenancyId", "id")
);
CREATE TABLE "OneTimePurchase" (
  "id" uuid NOT NULL,
  "tenancyId" uuid NOT NULL,
  "customerId" text NOT NULL,
  "customerType" "CustomerType" NOT NULL,
  "productId" text,
  "product" jsonb NOT NULL,
  "quantity" integer NOT NULL,
  "stripePaymentIntentId" text,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "creationSource" "PurchaseCreationSource" NOT NULL,
  "priceId" text,
  "refundedAt" timestamp(3),
  "revokedAt" timestamp(3),
  CONSTRAINT "OneTimePurchase_pkey" PRIMARY KEY ("tenancyId", "id")
);
CREATE TABLE "SubscriptionInvoice" (
  "id" uuid NOT NULL,
  "tenancyId" uuid NOT NULL,
  "stripeSubscriptionId" text NOT NULL,
  "stripeInvoiceId" text NOT NULL,
  "isSubscriptionCreationInvoice" boolean NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "status" text,
  "amountTotal" integer,
  "hostedInvoiceUrl" text,
  CONSTRAINT "SubscriptionInvoice_pkey" PRIMARY KEY ("tenancyId", "id")
);
CREATE TABLE "Event" (
  "id" uuid NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "isWide" boolean NOT NULL,
  "eventStartedAt" timestamp(3) NOT NULL,
  "eventEndedAt" timestamp(3) NOT NULL,
  "systemEventTypeIds" text[],
  "data" jsonb NOT NULL,
  "endUserIpInfoGuessId" uuid,
  "isEndUserIpInfoGuessTrusted" boolean NOT NULL DEFAULT false,
  CONSTRAINT "Event_pkey" PRIMARY KEY ("id")
);

CREATE UNIQUE INDEX ON "Tenancy" ("projectId", "branchId", "hasNoOrganization");
CREATE UNIQUE INDEX ON "Tenancy" ("projectId", "branchId", "organizationId");
CREATE UNIQUE INDEX ON "ProjectUser" ("mirroredProjectId", "mirroredBranchId", "projectUserId");
CREATE UNIQUE INDEX ON "ProjectUser" ("sequenceId");
CREATE INDEX ON "ProjectUser" ("shouldUpdateSequenceId", "tenancyId");
CREATE INDEX ON "ProjectUser" ("tenancyId", "sequenceId");
CREATE UNIQUE INDEX ON "ContactChannel" ("sequenceId");
CREATE UNIQUE INDEX ON "ContactChannel" ("tenancyId", "projectUserId", "type", "isPrimary");
CREATE UNIQUE INDEX ON "ContactChannel" ("tenancyId", "projectUserId", "type", "value");
CREATE UNIQUE INDEX ON "ContactChannel" ("tenancyId", "type", "value", "usedForAuth");
CREATE INDEX ON "ContactChannel" ("shouldUpdateSequenceId", "tenancyId");
CREATE INDEX ON "ContactChannel" ("tenancyId", "sequenceId");
CREATE UNIQUE INDEX ON "Team" ("mirroredProjectId", "mirroredBranchId", "teamId");
CREATE UNIQUE INDEX ON "Team" ("sequenceId");
CREATE INDEX ON "Team" ("shouldUpdateSequenceId", "tenancyId");
CREATE INDEX ON "Team" ("tenancyId", "sequenceId");
CREATE UNIQUE INDEX ON "TeamMember" ("sequenceId");
CREATE UNIQUE INDEX ON "TeamMember" ("tenancyId", "projectUserId", "isSelected");
CREATE INDEX ON "TeamMember" ("shouldUpdateSequenceId", "tenancyId");
CREATE INDEX ON "TeamMember" ("tenancyId", "sequenceId");
CREATE UNIQUE INDEX ON "TeamMemberDirectPermission" ("sequenceId");
CREATE UNIQUE INDEX ON "TeamMemberDirectPermission" ("tenancyId", "projectUserId", "teamId", "permissionId");
CREATE INDEX ON "TeamMemberDirectPermission" ("shouldUpdateSequenceId", "tenancyId");
CREATE INDEX ON "TeamMemberDirectPermission" ("tenancyId", "sequenceId");
CREATE UNIQUE INDEX ON "ProjectUserDirectPermission" ("sequenceId");
CREATE UNIQUE INDEX ON "ProjectUserDirectPermission" ("tenancyId", "projectUserId", "permissionId");
CREATE INDEX ON "ProjectUserDirectPermission" ("shouldUpdateSequenceId", "tenancyId");
CREATE INDEX ON "ProjectUserDirectPermission" ("tenancyId", "sequenceId");
CREATE UNIQUE INDEX ON "UserNotificationPreference" ("sequenceId");
CREATE UNIQUE INDEX ON "UserNotificationPreference" ("tenancyId", "projectUserId", "notificationCategoryId");
CREATE INDEX ON "UserNotificationPreference" ("shouldUpdateSequenceId", "tenancyId");
CREATE INDEX ON "UserNotificationPreference" ("tenancyId", "sequenceId");
CREATE UNIQUE INDEX ON "VerificationCode" ("projectId", "branchId", "code");
CREATE UNIQUE INDEX ON "VerificationCode" ("sequenceId");
CREATE INDEX ON "VerificationCode" ("shouldUpdateSequenceId", "type");
CREATE UNIQUE INDEX ON "EmailOutbox" ("sequenceId");
CREATE INDEX ON "EmailOutbox" ("shouldUpdateSequenceId", "tenancyId");
CREATE INDEX ON "EmailOutbox" ("tenancyId", "sequenceId");
CREATE UNIQUE INDEX ON "ProjectUserRefreshToken" ("refreshToken");
CREATE UNIQUE INDEX ON "ProjectUserRefreshToken" ("sequenceId");
CREATE INDEX ON "ProjectUserRefreshToken" ("shouldUpdateSequenceId", "tenancyId");
CREATE INDEX ON "ProjectUserRefreshToken" ("tenancyId", "sequenceId");
CREATE UNIQUE INDEX ON "ProjectUserOAuthAccount" ("sequenceId");
CREATE UNIQUE INDEX ON "ProjectUserOAuthAccount" ("tenancyId", "configOAuthProviderId", "projectUserId", "providerAccountId");
CREATE INDEX ON "ProjectUserOAuthAccount" ("shouldUpdateSequenceId", "tenancyId");
CREATE INDEX ON "ProjectUserOAuthAccount" ("tenancyId", "sequenceId");
CREATE UNIQUE INDEX ON "DeletedRow" ("sequenceId");
CREATE INDEX ON "DeletedRow" ("shouldUpdateSequenceId", "tenancyId");
CREATE INDEX ON "DeletedRow" ("tableName");
CREATE INDEX ON "DeletedRow" ("tenancyId");
CREATE INDEX ON "DeletedRow" ("tenancyId", "tableName", "sequenceId");
CREATE UNIQUE INDEX ON "OutgoingRequest" ("deduplicationKey") WHERE "startedFulfillingAt" IS NULL;
CREATE INDEX ON "OutgoingRequest" ("startedFulfillingAt", "createdAt");
CREATE INDEX ON "OutgoingRequest" ("startedFulfillingAt", "deduplicationKey");
CREATE UNIQUE INDEX ON "ExternalDbSyncMetadata" ("singleton");
CREATE UNIQUE INDEX ON "Subscription" ("tenancyId", "stripeSubscriptionId");
CREATE UNIQUE INDEX ON "OneTimePurchase" ("tenancyId", "stripePaymentIntentId");
CREATE UNIQUE INDEX ON "SubscriptionInvoice" ("tenancyId", "stripeInvoiceId");

-- With these, "ProjectUser" has thirteen.
CREATE INDEX ON "ProjectUser" ("mirroredProjectId", "mirroredBranchId", "createdAt");
CREATE INDEX ON "ProjectUser" ("tenancyId", "displayName");
CREATE INDEX ON "ProjectUser" ("tenancyId", "createdAt");
CREATE INDEX ON "ProjectUser" ("tenancyId", "lastActiveAt");
CREATE INDEX ON "ProjectUser" ("tenancyId", "signedUpAt");
CREATE INDEX ON "ProjectUser" ("tenancyId", "isAnonymous");
CREATE INDEX ON "ProjectUser" ("tenancyId", "signUpEmailNormalized");
CREATE INDEX ON "ProjectUser" ("tenancyId", "signUpIp");

ALTER TABLE "Tenancy" ADD FOREIGN KEY ("projectId")
  REFERENCES "Project" ("id") ON DELETE CASCADE;
ALTER TABLE "BranchConfigOverride" ADD FOREIGN KEY ("projectId")
  REFERENCES "Project" ("id") ON DELETE CASCADE;
ALTER TABLE "EnvironmentConfigOverride" ADD FOREIGN KEY ("projectId")
  REFERENCES "Project" ("id") ON DELETE CASCADE;
ALTER TABLE "ProjectUser" ADD FOREIGN KEY ("projectId")
  REFERENCES "Project" ("id") ON DELETE SET NULL;
ALTER TABLE "ContactChannel" ADD FOREIGN KEY ("tenancyId", "projectUserId")
  REFERENCES "ProjectUser" ("tenancyId", "projectUserId") ON DELETE CASCADE;
ALTER TABLE "TeamMember" ADD FOREIGN KEY ("tenancyId", "projectUserId")
  REFERENCES "ProjectUser" ("tenancyId", "projectUserId") ON DELETE CASCADE;
ALTER TABLE "TeamMember" ADD FOREIGN KEY ("tenancyId", "teamId")
  REFERENCES "Team" ("tenancyId", "teamId") ON DELETE CASCADE;
ALTER TABLE "TeamMemberDirectPermission" ADD FOREIGN KEY ("tenancyId", "projectUserId", "teamId")
  REFERENCES "TeamMember" ("tenancyId", "projectUserId", "teamId") ON DELETE CASCADE;
ALTER TABLE "ProjectUserDirectPermission" ADD FOREIGN KEY ("tenancyId", "projectUserId")
  REFERENCES "ProjectUser" ("tenancyId", "projectUserId") ON DELETE CASCADE;
ALTER TABLE "UserNotificationPreference" ADD FOREIGN KEY ("tenancyId", "projectUserId")
  REFERENCES "ProjectUser" ("tenancyId", "projectUserId") ON DELETE CASCADE;
ALTER TABLE "EmailOutbox" ADD FOREIGN KEY ("tenancyId")
  REFERENCES "Tenancy" ("id") ON DELETE CASCADE;
ALTER TABLE "ProjectUserOAuthAccount" ADD FOREIGN KEY ("tenancyId", "projectUserId")
  REFERENCES "ProjectUser" ("tenancyId", "projectUserId") ON DELETE CASCADE;
ALTER TABLE "SubscriptionInvoice" ADD FOREIGN KEY ("tenancyId", "stripeSubscriptionId")
  REFERENCES "Subscription" ("tenancyId", "stripeSubscriptionId") ON DELETE RESTRICT;

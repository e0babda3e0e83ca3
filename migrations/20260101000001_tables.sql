-- The backend's tables that stackctl works with, each where it is missing.
--
-- The sequenced tables carry few indexes on purpose: every one is paid again by each change and each stamp. There is no
-- unique index on "sequenceId": with one, a stamping UPDATE would take the row lock of a key change, and block every
-- insert into a table that refers to the row.
--
-- stackctl:allow timestamp-without-time-zone the columns are the backend's own, which fills them in UTC

CREATE TABLE IF NOT EXISTS "Project" (
  "id" text NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "displayName" text NOT NULL,
  "description" text NOT NULL DEFAULT '',
  "isProductionMode" boolean NOT NULL,
  "projectConfigOverride" jsonb,
  "logoUrl" text,
  "logoFullUrl" text,
  "ownerTeamId" uuid,
  "stripeAccountId" text,
  "logoDarkModeUrl" text,
  "logoFullDarkModeUrl" text,
  "onboardingStatus" text NOT NULL DEFAULT 'completed',
  PRIMARY KEY ("id"),
  CONSTRAINT "Project_onboardingStatus_valid" CHECK ("onboardingStatus" IN (
    'config_choice', 'apps_selection', 'auth_setup', 'domain_setup', 'email_theme_setup', 'payments_setup', 'welcome',
    'completed'
  ))
);

CREATE TABLE IF NOT EXISTS "Tenancy" (
  "id" uuid NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "projectId" text NOT NULL,
  "branchId" text NOT NULL,
  "organizationId" uuid,
  "hasNoOrganization" "BooleanTrue",
  "emailCapacityBoostExpiresAt" timestamp(3),
  PRIMARY KEY ("id"),
  UNIQUE ("projectId", "branchId", "hasNoOrganization"),
  UNIQUE ("projectId", "branchId", "organizationId"),
  FOREIGN KEY ("projectId") REFERENCES "Project" ("id") ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS "BranchConfigOverride" (
  "projectId" text NOT NULL,
  "branchId" text NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "config" jsonb NOT NULL,
  "source" jsonb,
  PRIMARY KEY ("projectId", "branchId"),
  FOREIGN KEY ("projectId") REFERENCES "Project" ("id") ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS "EnvironmentConfigOverride" (
  "projectId" text NOT NULL,
  "branchId" text NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "config" jsonb NOT NULL,
  PRIMARY KEY ("projectId", "branchId"),
  FOREIGN KEY ("projectId") REFERENCES "Project" ("id") ON DELETE CASCADE
);

-- stackctl:allow foreign-key-without-index the indexes are those of the backend's own schema
CREATE TABLE IF NOT EXISTS "ProjectUser" (
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
  PRIMARY KEY ("tenancyId", "projectUserId"),
  UNIQUE ("mirroredProjectId", "mirroredBranchId", "projectUserId"),
  FOREIGN KEY ("projectId") REFERENCES "Project" ("id") ON DELETE SET NULL,
  CONSTRAINT "ProjectUser_restricted_by_admin_consistency" CHECK (
    "restrictedByAdmin" OR ("restrictedByAdminReason" IS NULL AND "restrictedByAdminPrivateDetails" IS NULL)
  ),
  CONSTRAINT "ProjectUser_risk_score_bot_range" CHECK ("signUpRiskScoreBot" BETWEEN 0 AND 100),
  CONSTRAINT "ProjectUser_risk_score_free_trial_abuse_range" CHECK ("signUpRiskScoreFreeTrialAbuse" BETWEEN 0 AND 100),
  CONSTRAINT "ProjectUser_signedUpAt_not_null" CHECK ("signedUpAt" IS NOT NULL)
);

CREATE TABLE IF NOT EXISTS "ContactChannel" (
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
  PRIMARY KEY ("tenancyId", "projectUserId", "id"),
  UNIQUE ("tenancyId", "projectUserId", "type", "isPrimary"),
  UNIQUE ("tenancyId", "projectUserId", "type", "value"),
  UNIQUE ("tenancyId", "type", "value", "usedForAuth"),
  FOREIGN KEY ("tenancyId", "projectUserId") REFERENCES "ProjectUser" ("tenancyId", "projectUserId") ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS "Team" (
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
  PRIMARY KEY ("tenancyId", "teamId"),
  UNIQUE ("mirroredProjectId", "mirroredBranchId", "teamId")
);

CREATE TABLE IF NOT EXISTS "TeamMember" (
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
  PRIMARY KEY ("tenancyId", "projectUserId", "teamId"),
  UNIQUE ("tenancyId", "projectUserId", "isSelected"),
  FOREIGN KEY ("tenancyId", "projectUserId") REFERENCES "ProjectUser" ("tenancyId", "projectUserId") ON DELETE CASCADE,
  FOREIGN KEY ("tenancyId", "teamId") REFERENCES "Team" ("tenancyId", "teamId") ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS "TeamMemberDirectPermission" (
  "projectUserId" uuid NOT NULL,
  "teamId" uuid NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "id" uuid NOT NULL,
  "tenancyId" uuid NOT NULL,
  "permissionId" text NOT NULL,
  "sequenceId" bigint,
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  PRIMARY KEY ("id"),
  UNIQUE ("tenancyId", "projectUserId", "teamId", "permissionId"),
  FOREIGN KEY ("tenancyId", "projectUserId", "teamId")
    REFERENCES "TeamMember" ("tenancyId", "projectUserId", "teamId") ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS "ProjectUserDirectPermission" (
  "id" uuid NOT NULL,
  "tenancyId" uuid NOT NULL,
  "projectUserId" uuid NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  "permissionId" text NOT NULL,
  "sequenceId" bigint,
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  PRIMARY KEY ("id"),
  UNIQUE ("tenancyId", "projectUserId", "permissionId"),
  FOREIGN KEY ("tenancyId", "projectUserId") REFERENCES "ProjectUser" ("tenancyId", "projectUserId") ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS "UserNotificationPreference" (
  "id" uuid NOT NULL,
  "tenancyId" uuid NOT NULL,
  "projectUserId" uuid NOT NULL,
  "notificationCategoryId" uuid NOT NULL,
  "enabled" boolean NOT NULL,
  "sequenceId" bigint,
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  PRIMARY KEY ("tenancyId", "id"),
  UNIQUE ("tenancyId", "projectUserId", "notificationCategoryId"),
  FOREIGN KEY ("tenancyId", "projectUserId") REFERENCES "ProjectUser" ("tenancyId", "projectUserId") ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS "VerificationCode" (
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
  PRIMARY KEY ("projectId", "branchId", "id"),
  UNIQUE ("projectId", "branchId", "code")
);

CREATE TABLE IF NOT EXISTS "EmailOutbox" (
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
  "priority" integer NOT NULL GENERATED ALWAYS AS (
    CASE WHEN "isHighPriority" THEN 100 ELSE 0 END + CASE WHEN "renderedIsTransactional" THEN 10 ELSE 0 END
  ) STORED,
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
  "scheduledAtIfNotYetQueued" timestamp(3) GENERATED ALWAYS AS (
    CASE WHEN "isQueued" THEN NULL::timestamp ELSE "scheduledAt" END
  ) STORED,
  "startedSendingAt" timestamp(3),
  "finishedSendingAt" timestamp(3),
  "sentAt" timestamp(3) GENERATED ALWAYS AS (CASE
      WHEN ("canHaveDeliveryInfo" IS TRUE) THEN "deliveredAt"
      WHEN ("canHaveDeliveryInfo" IS FALSE) THEN "finishedSendingAt"
      ELSE NULL::timestamp
    END) STORED,
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
      WHEN ("deliveryDelayedAt" IS NOT NULL) THEN 'DELIVERY_DELAYED'::"EmailOutboxStatus"
      ELSE 'SENT'::"EmailOutboxStatus"
    END) STORED,
  "simpleStatus" "EmailOutboxSimpleStatus" NOT NULL GENERATED ALWAYS AS (CASE
      WHEN ("skippedReason" IS NOT NULL) THEN 'OK'::"EmailOutboxSimpleStatus"
      WHEN (("renderErrorExternalMessage" IS NOT NULL)
        OR ("sendServerErrorExternalMessage" IS NOT NULL) OR ("bouncedAt" IS NOT NULL))
        THEN 'ERROR'::"EmailOutboxSimpleStatus"
      WHEN (("finishedSendingAt" IS NOT NULL) AND (("canHaveDeliveryInfo" IS FALSE)
        OR ("deliveredAt" IS NOT NULL)))
        THEN 'OK'::"EmailOutboxSimpleStatus"
      WHEN (("finishedSendingAt" IS NULL) OR (("canHaveDeliveryInfo" IS TRUE) AND ("deliveredAt" IS NULL)))
        THEN 'IN_PROGRESS'::"EmailOutboxSimpleStatus"
      ELSE 'OK'::"EmailOutboxSimpleStatus"
    END) STORED,
  "sendRetries" integer NOT NULL DEFAULT 0,
  "nextSendRetryAt" timestamp(3),
  "sendAttemptErrors" jsonb,
  "sequenceId" bigint,
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  PRIMARY KEY ("tenancyId", "id"),
  FOREIGN KEY ("tenancyId") REFERENCES "Tenancy" ("id") ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS "ProjectUserRefreshToken" (
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
  PRIMARY KEY ("tenancyId", "id"),
  UNIQUE ("refreshToken")
);

CREATE TABLE IF NOT EXISTS "ProjectUserOAuthAccount" (
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
  PRIMARY KEY ("tenancyId", "id"),
  UNIQUE ("tenancyId", "configOAuthProviderId", "projectUserId", "providerAccountId"),
  FOREIGN KEY ("tenancyId", "projectUserId") REFERENCES "ProjectUser" ("tenancyId", "projectUserId") ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS "DeletedRow" (
  "id" uuid NOT NULL,
  "tenancyId" uuid NOT NULL,
  "tableName" text NOT NULL,
  "sequenceId" bigint,
  "primaryKey" jsonb NOT NULL,
  "data" jsonb,
  "deletedAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "startedFulfillingAt" timestamp(3),
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  PRIMARY KEY ("id")
);

CREATE TABLE IF NOT EXISTS "OutgoingRequest" (
  "id" uuid NOT NULL,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "deduplicationKey" text,
  "qstashOptions" jsonb NOT NULL,
  "startedFulfillingAt" timestamp(3),
  PRIMARY KEY ("id")
);

CREATE TABLE IF NOT EXISTS "ExternalDbSyncMetadata" (
  "id" text NOT NULL DEFAULT gen_random_uuid(),
  "singleton" "BooleanTrue" NOT NULL DEFAULT 'TRUE'::"BooleanTrue",
  "sequencerEnabled" boolean NOT NULL DEFAULT true,
  "pollerEnabled" boolean NOT NULL DEFAULT true,
  "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" timestamp(3) NOT NULL,
  PRIMARY KEY ("id"),
  UNIQUE ("singleton")
);

CREATE TABLE IF NOT EXISTS "Subscription" (
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
  PRIMARY KEY ("tenancyId", "id"),
  UNIQUE ("tenancyId", "stripeSubscriptionId")
);

CREATE TABLE IF NOT EXISTS "OneTimePurchase" (
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
  PRIMARY KEY ("tenancyId", "id"),
  UNIQUE ("tenancyId", "stripePaymentIntentId")
);

CREATE TABLE IF NOT EXISTS "SubscriptionInvoice" (
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
  PRIMARY KEY ("tenancyId", "id"),
  UNIQUE ("tenancyId", "stripeInvoiceId"),
  FOREIGN KEY ("tenancyId", "stripeSubscriptionId")
    REFERENCES "Subscription" ("tenancyId", "stripeSubscriptionId") ON DELETE RESTRICT
);

CREATE TABLE IF NOT EXISTS "Event" (
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
  PRIMARY KEY ("id")
);

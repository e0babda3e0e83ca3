-- The backend's enum types, each where it is missing. A type that is there keeps its values.

DO $$
BEGIN
  IF to_regtype('"BooleanTrue"') IS NULL THEN
    CREATE TYPE "BooleanTrue" AS ENUM ('TRUE');
  END IF;
  IF to_regtype('"ContactChannelType"') IS NULL THEN
    CREATE TYPE "ContactChannelType" AS ENUM ('EMAIL');
  END IF;
  IF to_regtype('"CustomerType"') IS NULL THEN
    CREATE TYPE "CustomerType" AS ENUM ('USER', 'TEAM', 'CUSTOM');
  END IF;
  IF to_regtype('"EmailOutboxCreatedWith"') IS NULL THEN
    CREATE TYPE "EmailOutboxCreatedWith" AS ENUM ('DRAFT', 'PROGRAMMATIC_CALL');
  END IF;
  IF to_regtype('"EmailOutboxSimpleStatus"') IS NULL THEN
    CREATE TYPE "EmailOutboxSimpleStatus" AS ENUM ('IN_PROGRESS', 'ERROR', 'OK');
  END IF;
  IF to_regtype('"EmailOutboxSkippedReason"') IS NULL THEN
    CREATE TYPE "EmailOutboxSkippedReason" AS ENUM (
      'USER_UNSUBSCRIBED', 'USER_ACCOUNT_DELETED', 'USER_HAS_NO_PRIMARY_EMAIL', 'NO_EMAIL_PROVIDED',
      'LIKELY_NOT_DELIVERABLE', 'MANUALLY_CANCELLED'
    );
  END IF;
  IF to_regtype('"EmailOutboxStatus"') IS NULL THEN
    CREATE TYPE "EmailOutboxStatus" AS ENUM (
      'PAUSED', 'PREPARING', 'RENDERING', 'RENDER_ERROR', 'SCHEDULED', 'QUEUED', 'SENDING', 'SERVER_ERROR',
      'SENT', 'SKIPPED', 'DELIVERY_DELAYED', 'BOUNCED', 'OPENED', 'CLICKED', 'MARKED_AS_SPAM'
    );
  END IF;
  IF to_regtype('"PurchaseCreationSource"') IS NULL THEN
    CREATE TYPE "PurchaseCreationSource" AS ENUM ('PURCHASE_PAGE', 'TEST_MODE', 'API_GRANT');
  END IF;
  IF to_regtype('"SubscriptionStatus"') IS NULL THEN
    CREATE TYPE "SubscriptionStatus" AS ENUM (
      'active', 'trialing', 'canceled', 'paused', 'incomplete', 'incomplete_expired', 'past_due', 'unpaid'
    );
  END IF;
  IF to_regtype('"VerificationCodeType"') IS NULL THEN
    CREATE TYPE "VerificationCodeType" AS ENUM (
      'ONE_TIME_PASSWORD', 'CONTACT_CHANNEL_VERIFICATION', 'PASSWORD_RESET', 'TEAM_INVITATION',
      'MFA_ATTEMPT', 'PASSKEY_REGISTRATION_CHALLENGE', 'PASSKEY_AUTHENTICATION_CHALLENGE',
      'INTEGRATION_PROJECT_TRANSFER', 'PURCHASE_URL'
    );
  END IF;
END $$;

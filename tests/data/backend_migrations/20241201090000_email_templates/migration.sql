CREATE TYPE "EmailTemplateType" AS ENUM ('EMAIL_VERIFICATION', 'PASSWORD_RESET', 'MAGIC_LINK');
CREATE TABLE "EmailTemplate" (
    "projectId" TEXT NOT NULL,
    "type" "EmailTemplateType" NOT NULL,
    "subject" TEXT NOT NULL DEFAULT 'Hello {{ name }}, 100% yours',
    "content" JSONB NOT NULL,

    CONSTRAINT "EmailTemplate_pkey" PRIMARY KEY ("projectId", "type")
);

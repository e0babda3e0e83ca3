ALTER TABLE "ProjectUser"
    ADD COLUMN "restrictedByAdmin" BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN "restrictedByAdminReason" TEXT;
DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conrelid = '"ProjectUser"'::regclass AND conname = 'ProjectUser_restricted_by_admin_consistency') THEN
        ALTER TABLE "ProjectUser" ADD CONSTRAINT "ProjectUser_restricted_by_admin_consistency"
            CHECK ("restrictedByAdmin" OR "restrictedByAdminReason" IS NULL) NOT VALID;
    END IF;
END $$;

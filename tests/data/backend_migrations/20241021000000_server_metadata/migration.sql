/* Two kinds of metadata /* and a comment in a comment: SQL nests them */ that clients never see. */
ALTER TABLE "ProjectUser"
    ADD COLUMN "serverMetadata" JSONB,
    ADD COLUMN "clientReadOnlyMetadata" JSONB;

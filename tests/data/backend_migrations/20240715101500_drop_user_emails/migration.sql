-- Nothing reads them any more.
ALTER TABLE "ProjectUser" DROP COLUMN "primaryEmail";
ALTER TABLE "ProjectUser" DROP COLUMN "primaryEmailVerified";

CREATE TABLE "ProjectApiKey" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "projectId" TEXT NOT NULL,
    "secretHash" TEXT NOT NULL,
    "isPublic" BOOLEAN NOT NULL DEFAULT false,
    "description" TEXT NOT NULL DEFAULT E'the owner\'s "key"',
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT now(),

    CONSTRAINT "ProjectApiKey_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "ProjectApiKey_description_check" CHECK ("description" NOT LIKE '%;%')
);

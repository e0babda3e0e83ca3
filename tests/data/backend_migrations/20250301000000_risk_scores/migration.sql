ALTER TABLE "ProjectUser"
    ADD COLUMN "signUpRiskScoreBot" SMALLINT NOT NULL DEFAULT 0,
    ADD COLUMN "signUpCountryCode" TEXT;
ALTER TABLE "ProjectUser" ADD CONSTRAINT "ProjectUser_risk_score_bot_range"
    CHECK ("signUpRiskScoreBot" >= 0 AND "signUpRiskScoreBot" <= 100) NOT VALID;

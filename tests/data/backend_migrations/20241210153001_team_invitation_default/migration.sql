-- A value that was added can be used only after its commit: hence a migration of its own.
INSERT INTO "EmailTemplate" ("projectId", "type", "content")
SELECT "id", 'TEAM_INVITATION', '{"version": 1}' FROM "Project" ON CONFLICT DO NOTHING;

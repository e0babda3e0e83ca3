"""What the application does: one function for each kind of change, over all synced tables.

Ids are shared by all tenancies, so that a row in the wrong copy would not be noticed by its key. Instead every row
carries the tag of its tenancy in one of its columns (see checks.TAGGED); a row that moves takes the other's tag.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.types.json import Jsonb

from .world import TENANCIES

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from .world import Connection, Tenancy

USERS = [uuid.UUID(int=1000 + n) for n in range(30)]
TEAMS = [uuid.UUID(int=2000 + n) for n in range(6)]
IDS = [uuid.UUID(int=3000 + n) for n in range(40)]
ONCE = 1 << 64  # users above are made once and never again: one that comes back is a resurrection


class Change:
    """One transaction's statements; picks at random, from a few rows so that writers meet."""

    def __init__(self, conn: Connection, rng: random.Random) -> None:
        self._conn = conn
        self.rng = rng
        self.t: Tenancy = rng.choice(TENANCIES)
        self.other: Tenancy = rng.choice(TENANCIES)
        self.text = f"{self.t.tag}{rng.randrange(10**6)}"
        self.moved = f"{self.other.tag}{rng.randrange(10**6)}"
        self.user, self.team, self.id = rng.choice(USERS), rng.choice(TEAMS), rng.choice(IDS)

    def run(self, statement: str, *values: Any) -> None:
        self._conn.execute(statement.encode(), values)

    def insert(self, table: str, values: dict[str, Any], parents: str = "") -> None:
        """Unless it is there. `parents`: a FROM clause, in which the rows it belongs to must be found."""
        plain = {k: Jsonb(v) if isinstance(v, dict) else v for k, v in values.items()}
        self._conn.execute(
            sql.SQL("INSERT INTO {} ({}) SELECT {} {} ON CONFLICT DO NOTHING").format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, plain)),
                sql.SQL(", ").join(sql.Literal(v) for v in plain.values()),
                sql.SQL(parents),  # pyright: ignore[reportArgumentType] - composed from constants below
            )
        )

    def of_user(self) -> dict[str, Any]:
        return {"tenancyId": self.t.id, "projectUserId": self.user}

    def user_exists(self) -> str:
        return f"""FROM "ProjectUser" WHERE "tenancyId" = '{self.t.id}' AND "projectUserId" = '{self.user}' FOR SHARE"""

    def likely(self, probability: float) -> bool:
        return self.rng.random() < probability


def add_user(c: Change, id: uuid.UUID | None = None) -> None:
    c.insert("ProjectUser", {
        "tenancyId": c.t.id, "projectUserId": id or c.user, "updatedAt": "now", "mirroredProjectId": str(c.t.id),
        "mirroredBranchId": c.t.branch, "displayName": c.text, "clientMetadata": {"of": c.text},
    })  # fmt: skip


def rename_user(c: Change) -> None:
    c.run('UPDATE "ProjectUser" SET "displayName" = %s WHERE "tenancyId" = %s AND "projectUserId" = %s',
          c.text, c.t.id, c.user)  # fmt: skip


def rename_all_users(c: Change) -> None:
    c.run('UPDATE "ProjectUser" SET "displayName" = %s WHERE "tenancyId" = %s', c.text, c.t.id)


def delete_user(c: Change) -> None:
    c.run('DELETE FROM "ProjectUser" WHERE "tenancyId" = %s AND "projectUserId" = %s', c.t.id, c.user)


def move_user(c: Change) -> None:
    c.run('UPDATE "ProjectUser" SET "tenancyId" = %s, "displayName" = %s, "mirroredProjectId" = %s'
          ' WHERE "tenancyId" = %s AND "projectUserId" = %s',
          c.other.id, c.moved, str(c.other.id), c.t.id, c.user)  # fmt: skip


def add_user_once(c: Change) -> None:
    add_user(c, uuid.UUID(int=ONCE + c.rng.getrandbits(40)))


def delete_user_once(c: Change) -> None:
    c.run('DELETE FROM "ProjectUser" WHERE ("tenancyId", "projectUserId") IN (SELECT "tenancyId", "projectUserId"'
          ' FROM "ProjectUser" WHERE "tenancyId" = %s AND "projectUserId" >= %s ORDER BY 1, 2 LIMIT 2)',
          c.t.id, uuid.UUID(int=ONCE))  # fmt: skip


def add_channel(c: Change) -> None:
    row = {"id": c.id, "updatedAt": "now", "type": "EMAIL", "isVerified": c.likely(0.5), "value": c.text}
    c.insert("ContactChannel", c.of_user() | row | {"isPrimary": "TRUE" if c.likely(0.7) else None}, c.user_exists())


def change_channel(c: Change) -> None:
    c.run('UPDATE "ContactChannel" SET value = %s, "isVerified" = NOT "isVerified" WHERE "tenancyId" = %s AND id = %s',
          c.text, c.t.id, c.id)  # fmt: skip


def delete_channel(c: Change) -> None:
    c.run('DELETE FROM "ContactChannel" WHERE "tenancyId" = %s AND id = %s', c.t.id, c.id)


def give_channel_away(c: Change) -> None:
    c.run('UPDATE "ContactChannel" SET "projectUserId" = %s, "isPrimary" = NULL WHERE "tenancyId" = %s AND id = %s',
          c.user, c.t.id, c.id)  # fmt: skip


def rekey_channel(c: Change) -> None:
    c.run('UPDATE "ContactChannel" SET id = %s WHERE "tenancyId" = %s AND id = %s', c.rng.choice(IDS), c.t.id, c.id)


def add_team(c: Change) -> None:
    c.insert("Team", {
        "tenancyId": c.t.id, "teamId": c.team, "updatedAt": "now", "mirroredProjectId": str(c.t.id),
        "mirroredBranchId": c.t.branch, "displayName": c.text,
    })  # fmt: skip


def rename_team(c: Change) -> None:
    c.run('UPDATE "Team" SET "displayName" = %s WHERE "tenancyId" = %s AND "teamId" = %s', c.text, c.t.id, c.team)


def delete_team(c: Change) -> None:
    c.run('DELETE FROM "Team" WHERE "tenancyId" = %s AND "teamId" = %s', c.t.id, c.team)


def add_member(c: Change) -> None:
    c.run('INSERT INTO "TeamMember" ("tenancyId", "projectUserId", "teamId", "updatedAt", "displayName")'
          ' SELECT u."tenancyId", u."projectUserId", t."teamId", now(), %s FROM "ProjectUser" AS u'
          ' JOIN "Team" AS t USING ("tenancyId") WHERE u."tenancyId" = %s AND u."projectUserId" = %s'
          ' AND t."teamId" = %s ON CONFLICT DO NOTHING', c.text, c.t.id, c.user, c.team)  # fmt: skip


def change_member(c: Change) -> None:
    c.run('UPDATE "TeamMember" SET "teamId" = %s, "displayName" = %s WHERE "tenancyId" = %s AND "projectUserId" = %s'
          ' AND "teamId" = %s', c.rng.choice(TEAMS), c.text, c.t.id, c.user, c.team)  # fmt: skip


def permit_member(c: Change) -> None:
    c.run('INSERT INTO "TeamMemberDirectPermission" (id, "tenancyId", "projectUserId", "teamId", "updatedAt",'
          ' "permissionId") SELECT gen_random_uuid(), "tenancyId", "projectUserId", "teamId", now(), %s'
          ' FROM "TeamMember" WHERE "tenancyId" = %s AND "projectUserId" = %s ON CONFLICT DO NOTHING',
          c.t.tag + c.rng.choice("abc"), c.t.id, c.user)  # fmt: skip


def rename_member_permission(c: Change) -> None:
    c.run('UPDATE "TeamMemberDirectPermission" SET "permissionId" = %s WHERE "tenancyId" = %s AND "projectUserId" = %s'
          ' AND "permissionId" = %s',
          c.t.tag + c.rng.choice("abc"), c.t.id, c.user, c.t.tag + c.rng.choice("abc"))  # fmt: skip


def permit_user(c: Change) -> None:
    row = {"id": c.id, "updatedAt": "now", "permissionId": c.t.tag + c.rng.choice("abc")}
    c.insert("ProjectUserDirectPermission", c.of_user() | row, c.user_exists())


def move_user_permission(c: Change) -> None:
    c.run('UPDATE "ProjectUserDirectPermission" SET "tenancyId" = %s, "permissionId" = %s WHERE id = %s',
          c.other.id, c.other.tag + c.rng.choice("abc"), c.id)  # fmt: skip


def invite(c: Change) -> None:
    c.insert("VerificationCode", {
        "projectId": "p", "branchId": c.t.branch, "id": c.id, "updatedAt": "now",
        "code": str(uuid.UUID(int=c.rng.getrandbits(128))),
        "type": "TEAM_INVITATION" if c.likely(0.8) else "PASSWORD_RESET", "expiresAt": "2030-01-01",
        "data": {"team_id": str(c.team) if c.likely(0.9) else "none"},
        "method": {"email": c.text} if c.likely(0.95) else {},
    })  # fmt: skip


def change_invitation(c: Change) -> None:
    key = 'WHERE "projectId" = \'p\' AND id = %s AND "branchId" = %s'
    if c.likely(0.2):
        c.run(f'UPDATE "VerificationCode" SET "branchId" = %s {key}', c.other.branch, c.id, c.t.branch)
    elif c.likely(0.3):
        kind = c.rng.choice(["TEAM_INVITATION", "PASSWORD_RESET"])
        c.run(f'UPDATE "VerificationCode" SET type = %s {key}', kind, c.id, c.t.branch)
    elif c.likely(0.4):
        c.run(f'UPDATE "VerificationCode" SET data = %s {key}', Jsonb({"team_id": str(c.team)}), c.id, c.t.branch)
    elif c.likely(0.5):
        c.run('DELETE FROM "VerificationCode" WHERE id = %s', c.id)
    else:
        c.run(f'UPDATE "VerificationCode" SET id = %s {key}', c.rng.choice(IDS), c.id, c.t.branch)


def add_account(c: Change) -> None:
    row = {"id": c.id, "updatedAt": "now", "configOAuthProviderId": "g", "providerAccountId": c.text}
    if c.likely(0.7):
        c.insert("ProjectUserOAuthAccount", c.of_user() | row, c.user_exists())
    else:
        c.insert("ProjectUserOAuthAccount", {"tenancyId": c.t.id} | row)


def change_account(c: Change) -> None:
    key = 'WHERE "tenancyId" = %s AND id = %s'
    if c.likely(0.4):
        user = c.user if c.likely(0.5) else None
        c.run(f'UPDATE "ProjectUserOAuthAccount" SET "projectUserId" = %s {key}', user, c.t.id, c.id)
    elif c.likely(0.7):
        c.run(f'UPDATE "ProjectUserOAuthAccount" SET "tenancyId" = %s, "providerAccountId" = %s {key}',
              c.other.id, c.moved, c.t.id, c.id)  # fmt: skip
    else:
        c.run(f'DELETE FROM "ProjectUserOAuthAccount" {key}', c.t.id, c.id)


def change_token(c: Change) -> None:
    key = 'WHERE "tenancyId" = %s AND id = %s'
    if c.likely(0.6):
        c.insert("ProjectUserRefreshToken", {
            "tenancyId": c.t.id, "id": c.id, "projectUserId": c.t.tagged_id(c.rng.randrange(99)), "updatedAt": "now",
            "refreshToken": str(uuid.UUID(int=c.rng.getrandbits(128))),
        })  # fmt: skip
    elif c.likely(0.6):
        c.run(f'UPDATE "ProjectUserRefreshToken" SET "tenancyId" = %s, "projectUserId" = %s {key}',
              c.other.id, c.other.tagged_id(c.rng.randrange(99)), c.t.id, c.id)  # fmt: skip
    else:
        c.run('DELETE FROM "ProjectUserRefreshToken" WHERE id = %s', c.id)


def change_outbox(c: Change) -> None:
    key = 'WHERE "tenancyId" = %s AND id = %s'
    if c.likely(0.5):
        c.insert("EmailOutbox", {
            "tenancyId": c.t.id, "id": c.id, "updatedAt": "now", "tsxSource": "x", "isHighPriority": False, "to": {},
            "extraRenderVariables": {}, "createdWith": "DRAFT", "shouldSkipDeliverabilityCheck": False,
            "scheduledAt": "2024-01-01", "themeId": c.text,
        })  # fmt: skip
    elif c.likely(0.6):
        c.run(f'UPDATE "EmailOutbox" SET "tenancyId" = %s, "themeId" = %s, "isPaused" = NOT "isPaused" {key}',
              c.other.id, c.moved, c.t.id, c.id)  # fmt: skip
    else:
        c.run('DELETE FROM "EmailOutbox" WHERE id = %s', c.id)


def change_preference(c: Change) -> None:
    if c.likely(0.6):
        row = {"id": c.id, "notificationCategoryId": c.t.tagged_id(c.rng.randrange(10**6)), "enabled": c.likely(0.5)}
        c.insert("UserNotificationPreference", c.of_user() | row, c.user_exists())
    else:
        c.run('UPDATE "UserNotificationPreference" SET id = %s WHERE "tenancyId" = %s AND id = %s',
              c.rng.choice(IDS), c.t.id, c.id)  # fmt: skip


def truncate(c: Change) -> None:
    tables = [
        '"Team" CASCADE',
        '"VerificationCode", "ProjectUserRefreshToken"',
        '"EmailOutbox"',
        '"ProjectUser" CASCADE',
    ]
    c.run(f"TRUNCATE {c.rng.choice(tables)}")


def queue_itself(c: Change) -> None:
    """As a backend does that queues a tenancy beside its changes."""
    c.run("SELECT enqueue_tenant_sync(%s)", c.t.id)


# How often, relative to each other.
OPERATIONS: dict[Callable[[Change], None], float] = {
    add_user: 4, rename_user: 2, rename_all_users: 0.3, delete_user: 1, move_user: 1, add_user_once: 2,
    delete_user_once: 1.5, add_channel: 3, change_channel: 1, delete_channel: 1, give_channel_away: 1,
    rekey_channel: 1, add_team: 1.5, rename_team: 1, delete_team: 0.4, add_member: 1.5, change_member: 1,
    permit_member: 1, rename_member_permission: 1, permit_user: 1, move_user_permission: 1, invite: 1.5,
    change_invitation: 1.5, add_account: 1, change_account: 1, change_token: 1, change_outbox: 1,
    change_preference: 1, truncate: 0.06, queue_itself: 0.2,
}  # fmt: skip

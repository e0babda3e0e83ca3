"""A database shaped like a live backend's: all its tables and indexes, no trigger, nothing of stackctl.

The application of such a backend marks what it changes and writes the tombstones itself; `Application` does that.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.backend import BRANCHES, MINE, fetch, insert, seed_tenancies

if TYPE_CHECKING:
    from tests.backend import Project

Connection = psycopg.Connection[Any]

_DDL = Path(__file__).with_suffix(".sql")

_KEYS = {
    "ProjectUser": ("tenancyId", "projectUserId"),
    "ContactChannel": ("tenancyId", "projectUserId", "id"),
    "Team": ("tenancyId", "teamId"),
}

# As the backend's own sync creates them in an external database.
COPIES = """
CREATE TABLE users (
  id uuid PRIMARY KEY NOT NULL, display_name text, profile_image_url text, primary_email text,
  primary_email_verified boolean NOT NULL DEFAULT false, signed_up_at timestamp without time zone NOT NULL,
  client_metadata jsonb NOT NULL DEFAULT '{}'::jsonb, client_read_only_metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
  server_metadata jsonb NOT NULL DEFAULT '{}'::jsonb, is_anonymous boolean NOT NULL DEFAULT false);
CREATE TABLE teams (
  id uuid PRIMARY KEY NOT NULL, display_name text NOT NULL, profile_image_url text,
  created_at timestamp without time zone NOT NULL, client_metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
  client_read_only_metadata jsonb NOT NULL DEFAULT '{}'::jsonb, server_metadata jsonb NOT NULL DEFAULT '{}'::jsonb);
REVOKE ALL ON users, teams FROM PUBLIC;
GRANT SELECT ON users, teams TO PUBLIC;
CREATE TABLE _stack_sync_metadata (
  mapping_name text PRIMARY KEY NOT NULL, last_synced_sequence_id bigint NOT NULL DEFAULT -1,
  updated_at timestamp without time zone NOT NULL DEFAULT now());
"""


def build(conn: Connection) -> None:
    """Create the backend's schema in an empty database, with two tenancies and no other row."""
    conn.execute(cast("LiteralString", _DDL.read_text(encoding="utf-8")))
    seed_tenancies(conn)


def configure(conn: Connection, config: Any, tenancy: uuid.UUID = MINE) -> None:
    """Write the configuration of the tenancy's branch."""
    conn.execute(
        'INSERT INTO "EnvironmentConfigOverride" ("projectId", "branchId", "updatedAt", config)'
        ' VALUES (\'p\', %s, now(), %s) ON CONFLICT ("projectId", "branchId") DO UPDATE SET config = EXCLUDED.config',
        (BRANCHES[tenancy], Jsonb(config)),
    )


def database(url: Any, name: str = "analytics") -> dict[str, Any]:
    """A configuration with one external database."""
    return {"dbSync": {"externalDatabases": {name: {"type": "postgres", "connectionString": url}}}}


def from_backend(project: Project, **settings: Any) -> Project:
    """The project takes its external databases from the backend."""
    project.settings |= {"external_databases_from": "backend", "external_databases_local": "allow"}
    project.settings["database"] |= settings
    return project


class Application:
    """What the backend's own code does: every change it makes is marked, every delete leaves a tombstone.

    Rows that go by a cascade of the database leave none: the code does not see them.
    """

    def __init__(self, conn: Connection) -> None:
        self.conn = conn

    def update(self, table: str, key: dict[str, Any], **values: Any) -> None:
        self.conn.execute(
            sql.SQL('UPDATE {} SET {}, "shouldUpdateSequenceId" = true WHERE {}').format(
                sql.Identifier(table), _assignments(values, ", "), _assignments(key, " AND ")
            ),
            values | key,
        )

    def delete(self, table: str, key: dict[str, Any], tenancy: uuid.UUID = MINE) -> None:
        with self.conn.transaction():
            where = _assignments(key, " AND ")
            rows = self.conn.execute(
                sql.SQL("DELETE FROM {} AS t WHERE {} RETURNING to_jsonb(t)").format(sql.Identifier(table), where), key
            ).fetchall()
            for (row,) in rows:
                own = {name: row[name] for name in _KEYS[table]}
                insert(self.conn, "DeletedRow",
                       {"id": uuid.uuid4(), "tenancyId": tenancy, "tableName": table, "primaryKey": own,
                        "data": row})  # fmt: skip


def _assignments(values: dict[str, Any], between: LiteralString) -> sql.Composed:
    return sql.SQL(between).join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in values
    )


def triggers(conn: Connection) -> list[Any]:
    return fetch(conn, "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal")

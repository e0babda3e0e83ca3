"""Rows from PostgreSQL into external databases, against the binary COPY of one end piped into the other."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, LiteralString, cast

from bench.scene import SYNC_BATCH, TENANCY, Figure, at_least, interleaved, run, seconds, stamp, sync
from stackctl.core.errors import StackctlError
from stackctl.mapping.compile import compile_mapping
from stackctl.sync.engine import paged_load

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from bench.scene import Connection, Scene
    from stackctl.sync.pipeline import Pipeline

NAMES = ("first-load", "paged", "re-send", "per-row", "sqlite", "duckdb")
ROUNDS = 3
BUFFER = 64 * 1024  # bytes between the two COPYs
FETCHED = 500  # rows that libpq hands over at a time
PAGE = 1000  # rows, as the reference fetches them
PAGES = (0.0, 0.5, 0.99)  # how deep in the table the reference's pages are sampled: the first ones are the dearest
_FILES = {"sqlite": 0.55, "duckdb": 0.7}  # goals, against the limit between two PostgreSQLs

_TOUCH = 'UPDATE "ProjectUser" SET "displayName" = "displayName" || \'!\''
_REFERENCE_FETCH: LiteralString = """
SELECT * FROM (
  SELECT u."projectUserId" AS id, u."displayName", u."profileImageUrl",
         (SELECT c."value" FROM "ContactChannel" AS c WHERE c."tenancyId" = u."tenancyId"
            AND c."projectUserId" = u."projectUserId" AND c."type" = 'EMAIL' AND c."isPrimary" = 'TRUE' LIMIT 1),
         COALESCE((SELECT c."isVerified" FROM "ContactChannel" AS c WHERE c."tenancyId" = u."tenancyId"
            AND c."projectUserId" = u."projectUserId" AND c."type" = 'EMAIL' AND c."isPrimary" = 'TRUE' LIMIT 1),
            false),
         u."signedUpAt", COALESCE(u."clientMetadata", '{}')::text, COALESCE(u."clientReadOnlyMetadata", '{}')::text,
         COALESCE(u."serverMetadata", '{}')::text, u."isAnonymous", u."sequenceId", false AS deleted
  FROM "ProjectUser" AS u WHERE u."tenancyId" = %(tenancy)s
  UNION ALL
  SELECT (d."primaryKey" ->> 'projectUserId')::uuid, NULL, NULL, NULL, false, NULL, '{}', '{}', '{}', false,
         d."sequenceId", true
  FROM "DeletedRow" AS d WHERE d."tenancyId" = %(tenancy)s AND d."tableName" = 'ProjectUser'
) AS changed
WHERE "sequenceId" > %(cursor)s ORDER BY "sequenceId" LIMIT %(limit)s
"""
_REFERENCE_UPSERT: LiteralString = """
WITH params AS (
  SELECT %s::uuid AS id, %s::text AS display_name, %s::text AS profile_image_url, %s::text AS primary_email,
         %s::boolean AS primary_email_verified, %s::timestamp AS signed_up_at, %s::jsonb AS client_metadata,
         %s::jsonb AS client_read_only_metadata, %s::jsonb AS server_metadata, %s::boolean AS is_anonymous,
         %s::bigint AS sequence_id, %s::boolean AS deleted
),
gone AS (DELETE FROM users USING params WHERE params.deleted AND users.id = params.id RETURNING 1),
written AS (
  INSERT INTO users (id, display_name, profile_image_url, primary_email, primary_email_verified, signed_up_at,
                     client_metadata, client_read_only_metadata, server_metadata, is_anonymous)
  SELECT id, display_name, profile_image_url, primary_email, primary_email_verified, signed_up_at, client_metadata,
         client_read_only_metadata, server_metadata, is_anonymous
  FROM params WHERE NOT deleted
  ON CONFLICT (id) DO UPDATE SET display_name = EXCLUDED.display_name, profile_image_url = EXCLUDED.profile_image_url,
    primary_email = EXCLUDED.primary_email, primary_email_verified = EXCLUDED.primary_email_verified,
    signed_up_at = EXCLUDED.signed_up_at, client_metadata = EXCLUDED.client_metadata,
    client_read_only_metadata = EXCLUDED.client_read_only_metadata, server_metadata = EXCLUDED.server_metadata,
    is_anonymous = EXCLUDED.is_anonymous
  RETURNING 1
)
INSERT INTO cursors (mapping, sequence_id) SELECT 'users', sequence_id FROM params
ON CONFLICT (mapping) DO UPDATE SET sequence_id = greatest(cursors.sequence_id, EXCLUDED.sequence_id)
"""


def figures(scene: Scene, wanted: Collection[str]) -> Iterator[Figure]:
    """The rows of the table that `wanted` names, of NAMES."""
    source = scene.backend(scene.rows)
    moving = _Moving(scene, source)
    ways: dict[str, Callable[[], float]] = {"limit": moving.limit}
    if "first-load" in wanted:
        ways |= {"best": moving.limit_key_last}
    if "re-send" in wanted:
        ways["upsert"] = moving.upsert_by_hand
    if "sqlite" in wanted:
        ways["sqlite_floor"] = moving.into_sqlite_by_hand
    if {"first-load", "re-send", "per-row"} & set(wanted):
        ways |= {"first": moving.first_load, "again": moving.again, "per_row": moving.per_row}
    if "paged" in wanted:
        whole = {
            "whole": lambda: moving.first_load(scene.rows),
            "keyed": lambda: moving.first_load(scene.rows, keyed=True),
        }
        ways |= whole | {"paged": lambda: moving.first_load(0)}
    ways |= {kind: moving.into_file(kind) for kind in _FILES if kind in wanted and moving.works(kind)}
    times = interleaved(ROUNDS, **ways)
    limit = times["limit"]
    per_second = {name: f"{scene.rows / time:,.0f} rows/s" for name, time in times.items()}
    against = f"limit {per_second['limit']}"
    if "first-load" in wanted:
        best = f"limit {per_second['best']}, {per_second['limit']} with the key in place"
        yield at_least("first-load", "first load, PostgreSQL to PostgreSQL, against piped COPY",
                       f"{per_second['first']}; {best}",
                       ratio=times["best"] / times["first"], goal=0.95)  # fmt: skip
    if "paged" in wanted:
        # Only a table with its key in place can be gone on with after a cut.
        yield at_least("paged", "first load in pages, against one transaction with the key in place",
                       f"{per_second['paged']}; {per_second['keyed']}, {per_second['whole']} with the key made last",
                       ratio=times["keyed"] / times["paged"], goal=0.95)  # fmt: skip
    if "re-send" in wanted:
        yield at_least("re-send", "all rows changed, re-sent", f"{per_second['again']}; {against}",
                       ratio=limit / times["again"], goal=0.55)  # fmt: skip
        yield Figure("re-send", "    by hand, one COPY into a temporary table and one upsert, against the same limit",
                     f"{per_second['upsert']}; the re-send is {times['upsert'] / times['again']:.2f} of it",
                     limit / times["upsert"])  # fmt: skip
    if "per-row" in wanted:
        reference = f"statement a row {per_second['per_row']}"
        for name, what in (("first", "first load"), ("again", "re-send")):
            yield at_least("per-row", f"{what} against one upsert statement a row", f"{per_second[name]}; {reference}",
                           ratio=times["per_row"] / times[name], goal=50)  # fmt: skip
    for kind, goal in _FILES.items():
        if kind in times:
            what = f"first load into {'SQLite' if kind == 'sqlite' else 'DuckDB'}, against the same limit"
            yield at_least(kind, what, f"{per_second[kind]}; {against}", ratio=limit / times[kind], goal=goal)
    if "sqlite" in times:
        floor = times["sqlite_floor"]
        yield Figure("sqlite", "    by hand, one SELECT and one executemany, against the same limit",
                     f"{per_second['sqlite_floor']}; the load is {floor / times['sqlite']:.2f} of it",
                     limit / floor)  # fmt: skip
    source.close()


class _Moving:
    """The ways to move the users of one backend; each returns its seconds, what it prepares not counted."""

    def __init__(self, scene: Scene, source: Connection) -> None:
        self._scene = scene
        self._source = source
        stamp(scene.pipeline({}), SYNC_BATCH)
        self._vacuum(source)
        self._compiled = compile_mapping(scene.pipeline({}).find_mapping("users"), "postgres")

    def _vacuum(self, conn: Connection) -> None:
        conn.execute("VACUUM ANALYZE")
        conn.execute("CHECKPOINT")

    def _pipeline(self, **database: Any) -> Pipeline:
        return self._scene.pipeline({TENANCY: {"copy": database | {"mappings": ["users"]}}})

    def limit(self) -> float:
        with self._scene.fresh("piped") as target:
            target.execute(self._compiled.create_table)
            self._vacuum(self._source)
            took = seconds(lambda: self._pipe(target))
            self._count(run(target, "SELECT count(*) FROM users"))
        return took

    def limit_key_last(self) -> float:
        """What is best known for a new table: without the key until it is filled, and no files for the join."""
        with self._scene.fresh("piped") as target:
            target.execute(self._compiled.create_table)
            target.execute("ALTER TABLE users DROP CONSTRAINT users_pkey")
            self._vacuum(self._source)
            self._source.execute("SET work_mem = '32MB'")

            def load() -> None:
                self._pipe(target)
                target.execute("ALTER TABLE users ADD PRIMARY KEY (id)")

            took = seconds(load)
            self._source.execute("RESET work_mem")
            self._count(run(target, "SELECT count(*) FROM users"))
        return took

    def upsert_by_hand(self) -> float:
        """The best that is known for rows that are all there and all changed: at once, and in order of the key."""
        with self._scene.fresh("upserted") as target:
            target.execute(self._compiled.create_table)
            self._pipe(target)
            self._source.execute(_TOUCH)
            self._vacuum(target)
            self._vacuum(self._source)
            self._source.execute("SET work_mem = '32MB'")
            target.execute("SET work_mem = '64MB'")

            def load() -> None:
                with target.transaction():
                    target.execute(self._compiled.create_staging)
                    self._pipe(target, self._compiled.staging)
                    self._count(target.execute(self._compiled.upsert).rowcount)

            took = seconds(load)
            self._source.execute("RESET work_mem")
        return took

    def into_sqlite_by_hand(self) -> float:
        """What reading the rows and binding their values takes, with nothing else done."""
        compiled = compile_mapping(self._compiled.mapping, "sqlite")
        path = self._scene.directory / "by-hand.sqlite"
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
        self._vacuum(self._source)
        self._source.execute("SET work_mem = '32MB'")

        def load() -> None:
            with closing(sqlite3.connect(path)) as file, self._source.cursor(binary=True) as cursor:
                file.execute("PRAGMA journal_mode = WAL")
                file.execute(compiled.create_table)
                with file:
                    file.executemany(
                        compiled.upsert, cursor.stream(compiled.load, {"tenancy_id": TENANCY}, size=FETCHED)
                    )

        took = seconds(load)
        self._source.execute("RESET work_mem")
        with closing(sqlite3.connect(path)) as file:
            self._count(file.execute("SELECT count(*) FROM users").fetchone()[0])
        return took

    def _pipe(self, target: Connection, table: str = "users") -> None:
        columns = ", ".join(f'"{column.name}"' for column in self._compiled.mapping.columns)
        out = cast("LiteralString", f"COPY ({self._compiled.load}) TO STDOUT (FORMAT binary)")
        into = cast("LiteralString", f"COPY {table} ({columns}) FROM STDIN (FORMAT binary)")
        with (
            self._source.cursor() as reader,
            target.cursor() as writer,
            reader.copy(out, {"tenancy_id": TENANCY}) as read,
            writer.copy(into) as write,
        ):
            buffer = bytearray()
            for row in read:
                buffer += row
                if len(buffer) >= BUFFER:
                    write.write(bytes(buffer))
                    buffer.clear()
            write.write(bytes(buffer))

    def first_load(self, whole_rows: int | None = None, *, keyed: bool = False) -> float:
        """`whole_rows`: more than so many rows come in pages, if not as usual. `keyed`: the table is there before."""
        usual = paged_load.WHOLE_ROWS
        if whole_rows is not None:
            paged_load.WHOLE_ROWS = whole_rows
        with self._scene.fresh("analytics") as target:
            if keyed:
                target.execute(self._compiled.create_table)
        try:
            return self._sync(self._pipeline(type="postgres", url=self._scene.server.url("analytics")))
        finally:
            paged_load.WHOLE_ROWS = usual

    def again(self) -> float:
        """After `first_load`, or in its place: the target must be filled."""
        pipeline = self._pipeline(type="postgres", url=self._scene.server.url("analytics"))
        self._scene.server.ensure_database("analytics")
        sync(pipeline)
        self._source.execute(_TOUCH)
        stamp(pipeline, SYNC_BATCH)
        with self._scene.connect("analytics") as target:
            self._vacuum(target)
        return self._sync(pipeline)

    def _sync(self, pipeline: Pipeline) -> float:
        self._vacuum(self._source)
        started = time.perf_counter()
        (result,) = sync(pipeline)
        took = time.perf_counter() - started
        self._count(result.mappings[0].upserted)
        return took

    def _count(self, rows: int) -> None:
        if rows != self._scene.rows:
            raise RuntimeError(f"{rows} rows were moved, not {self._scene.rows}")

    def per_row(self) -> float:
        """What all rows would take, by a sample of pages."""
        first, last = self._source.execute(
            'SELECT min("sequenceId"), max("sequenceId") FROM "ProjectUser"'
        ).fetchone() or (0, 0)
        with self._scene.fresh("reference") as target:
            target.execute(self._compiled.create_table)
            target.execute("CREATE TABLE cursors (mapping text PRIMARY KEY, sequence_id bigint NOT NULL)")
            sampled = 0
            started = time.perf_counter()
            for depth in PAGES:
                cursor = first - 1 + int((last - first) * depth)
                page = {"tenancy": TENANCY, "cursor": cursor, "limit": PAGE}
                for row in self._source.execute(_REFERENCE_FETCH, page).fetchall():
                    target.execute(_REFERENCE_UPSERT, row)
                    sampled += 1
            return (time.perf_counter() - started) * self._scene.rows / sampled

    def into_file(self, kind: str) -> Callable[[], float]:
        path = self._scene.directory / f"copy.{kind}"

        def load() -> float:
            for file in path.parent.glob(f"{path.name}*"):
                file.unlink()
            return self._sync(self._pipeline(type=kind, path=str(path)))

        return load

    def works(self, kind: str) -> bool:
        """Whether this kind of database can be opened here."""
        probe: Path = self._scene.directory / f"probe.{kind}"
        with suppress(StackctlError, ImportError):
            pipeline = self._pipeline(type=kind, path=str(probe))
            for database in pipeline.databases[TENANCY]:
                pipeline.open_target(database).close()
            return True
        return False

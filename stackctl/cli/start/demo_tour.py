"""`stackctl demo`: the whole pipeline on an embedded PostgreSQL, with every step told as it happens.

Works in a folder of its own, which keeps a stackctl.yaml that every other command understands.
"""

from __future__ import annotations

import fcntl
import hashlib
import shlex
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from uuid import UUID

from psycopg import sql

from stackctl.cli.start import demo_shop
from stackctl.config.settings import CONFIG_NAME, Flags, Settings
from stackctl.core.bundled import find_bundled
from stackctl.core.durations import parse_duration
from stackctl.core.errors import ServiceError, StateError, UsageError
from stackctl.core.files import make_private_file, replace_file
from stackctl.core.sentences import format_count
from stackctl.migrate.folder import discover
from stackctl.migrate.runner.run import apply_migrations
from stackctl.payments.stand_in.folder import write_stand_in
from stackctl.postgres import embedded
from stackctl.postgres.connect import connect_operated, open_operated_session
from stackctl.postgres.errors import translating_errors
from stackctl.postgres.statements import load_statements
from stackctl.sync import service
from stackctl.sync.check.verify import verify
from stackctl.sync.pipeline import Pipeline
from stackctl.sync.scope import Scope
from stackctl.sync.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stackctl.postgres.connect import Connection
    from stackctl.postgres.embedded import EmbeddedServer
    from stackctl.sync.engine.comparison import VerifyResult

_SQL = load_statements(__file__)
_MARK = "# Written by `stackctl demo`; safe to delete together with this folder.\n"
_OPERATED, _EXTERNAL = "backend", "analytics"
_KEEP = "30m"  # how long the server goes on running after its last use
DEMO_FILES = Path(__file__).with_name("demo_folder")  # rules, a suite, migrations: what else lies in the demo's folder
_HASH = sql.SQL("SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {} AS t")


@dataclass(frozen=True)
class Customer:
    """A tenancy of the demo, and how many users it starts with."""

    tenancy: UUID
    project: str
    name: str
    users: int


CUSTOMERS = (
    Customer(UUID("6fbbf22e-f4b2-4c6e-95a1-beab6fa41063"), "acme", "Acme Rockets", 3000),
    Customer(UUID("0b7cf1c3-51a4-4f0c-9d3e-2f6f1f0c7a11"), "globex", "Globex Health", 1500),
)
_CONFIG = f"""{_MARK}version: 1
database:
  url: "embedded:./postgres?dbname={_OPERATED}&keep={_KEEP}"
payments:
  stripe_api_base: "embedded:./stripe"   # a stand-in for Stripe, of this folder alone; no key is needed, none is sent
sync:
  signing_keys: {{current: a-key-for-the-demo-which-is-no-secret}}   # of requests to `stackctl serve`
tenancies:
  {CUSTOMERS[0].tenancy}:   # {CUSTOMERS[0].name}
    external_databases:
      analytics: {{type: postgres, url: "embedded:./postgres?dbname={_EXTERNAL}&keep={_KEEP}"}}
  {CUSTOMERS[1].tenancy}:   # {CUSTOMERS[1].name}
    external_databases:
      warehouse: {{type: sqlite, path: ./warehouse.db}}
"""
_SEED = (
    "users",
    "channels",
    "teams",
    "members",
    "team_permissions",
    "project_permissions",
    "preferences",
    "sessions",
    "accounts",
    "emails",
    "invitations",
)
_CHANGES = ("rename_users", "verify_emails", "rename_teams")


@dataclass(frozen=True)
class Step:
    """One thing that was done: what, how it went, and how long it took in seconds."""

    title: str
    outcome: str
    seconds: float


@dataclass(frozen=True)
class CheckedDatabase:
    """One external database compared with its source."""

    tenancy: UUID
    database: str
    type: str
    mappings: tuple[VerifyResult, ...]


def is_equal(result: VerifyResult) -> bool:
    """Whether the copy holds what its source holds, with nothing still on its way."""
    return not (result.differences or result.in_flight)


@dataclass(frozen=True)
class DemoResult:
    directory: Path
    steps: tuple[Step, ...]
    checks: tuple[CheckedDatabase, ...]

    @property
    def ok(self) -> bool:
        return all(map(is_equal, (result for checked in self.checks for result in checked.mappings)))


def run_demo(directory: Path, tell: Callable[[Step], None], confirm: Callable[[Sequence[str]], None]) -> DemoResult:
    """Run the demo in `directory`, which is new, empty, or left by an earlier demo (then it starts afresh).

    `confirm` is called with what was changed there since an earlier demo, and may raise. Raises StateError `not-a-demo`
    when something else is there, `demo-running` when another demo is.
    """
    with _lock_directory(directory) as config:
        changed = [
            str(name)
            for name in _list_files()
            if _is_edited(directory / name, (DEMO_FILES / name).read_text(encoding="utf-8"))
        ]
        if _is_edited(directory / CONFIG_NAME, _CONFIG):
            changed.insert(0, CONFIG_NAME)
        with _naming_the_way_out(directory):
            server = embedded.attach(directory / "postgres", keep=parse_duration(_KEEP).total_seconds())
            if _is_database_changed(server):
                changed.append("the database")
        if changed:
            confirm(changed)
        # Only now: neither another demo's file nor an edited one is to be changed before.
        config.truncate(0)
        config.write(_CONFIG)
        config.flush()
        return _play(directory, server, tell)


def _list_files() -> list[Path]:
    return sorted(path.relative_to(DEMO_FILES) for path in DEMO_FILES.rglob("*.*") if path.is_file())


def _is_edited(path: Path, original: str) -> bool:
    found = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return found not in ("", original)


def _play(directory: Path, server: EmbeddedServer, tell: Callable[[Step], None]) -> DemoResult:
    steps: list[Step] = []

    def step(title: str, work: Callable[[], str]) -> None:
        started = time.monotonic()
        outcome = work()
        steps.append(Step(title, outcome, time.monotonic() - started))
        tell(steps[-1])

    step("Start PostgreSQL", lambda: _prepare_databases(directory, server))
    settings = Settings(Flags(config=directory / CONFIG_NAME), environ={}, cwd=directory)
    pipeline = Pipeline(settings)
    step("Migrate", lambda: _migrate(pipeline))
    step("Seed two tenancies", lambda: _seed(pipeline))
    step("Open a shop", lambda: _open_shop(pipeline, directory))
    step("Stamp and queue", lambda: _sequence(pipeline))
    step("Sync both", lambda: _poll(pipeline))
    step("Change, delete, re-create", lambda: _change(pipeline))
    step("Stamp and queue", lambda: _sequence(pipeline))
    step("Sync both", lambda: _poll(pipeline))
    checks: list[CheckedDatabase] = []
    step("Compare row for row", lambda: _compare(pipeline, checks))
    _remember_database(server)
    return DemoResult(directory, tuple(steps), tuple(checks))


@contextmanager
def _lock_directory(directory: Path) -> Iterator[TextIO]:
    """The folder made ready, and ours for the time of the demo: a second demo would drop the first one's databases.

    Gives its configuration file, as it is.
    """
    try:
        _prepare(directory)
        lock = (directory / CONFIG_NAME).open("r+", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{directory} can't be used: {error.strerror}", code="usage", hint="name another folder: stackctl demo DIR"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(
                f"another demo is running in {directory}",
                code="demo-running",
                hint="wait for it, or name another folder",
            ) from None
        yield lock


def _prepare(directory: Path) -> None:
    config = directory / CONFIG_NAME
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        ours = config.is_file() and config.read_text(encoding="utf-8", errors="replace").startswith(_MARK)
        # An interrupted first run may have left only the server's folder.
        names = {entry.name for entry in directory.iterdir()} if directory.is_dir() else {"a file"}
        unfinished = names <= {"postgres", "stripe", CONFIG_NAME} and not (config.is_file() and config.stat().st_size)
        if not ours and not unfinished:
            raise StateError(
                f"{directory} is not empty and was not made by `stackctl demo`",
                code="not-a-demo",
                hint="name another folder: stackctl demo DIR",
            )
    # Whoever may write the configuration chooses where variables are sent.
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    make_private_file(config)


@contextmanager
def _naming_the_way_out(directory: Path) -> Iterator[None]:
    """Of a server that can't be used any more."""
    try:
        yield
    except ServiceError as error:
        gone = error.code in ("embedded-start-failed", "connection-lost")
        if gone and (directory / "postgres" / "data").exists():
            error.hint = f"if files of it were deleted, delete the whole folder: rm -r {shlex.quote(str(directory))}"
        raise


def _is_database_changed(server: EmbeddedServer) -> bool:
    """Whether rows are not as the last demo left them; False where there was none, or where it did not end."""
    with translating_errors("the embedded server"), server.connect(server.parameters()) as conn:
        row = conn.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", [_OPERATED]
        ).fetchone()
    return row is not None and row[0] is not None and row[0] != _hash_database(server)


def _remember_database(server: EmbeddedServer) -> None:
    with translating_errors("the embedded server"), server.connect(server.parameters()) as conn:
        conn.execute(
            sql.SQL("COMMENT ON DATABASE {} IS {}").format(
                sql.Identifier(_OPERATED), sql.Literal(_hash_database(server))
            )
        )


def _hash_database(server: EmbeddedServer) -> str:
    """Of all rows that a person changes, and not a pipeline that runs."""
    with server.connect(server.parameters(_OPERATED)) as conn:
        tables = conn.execute(_SQL["list_own_tables"]).fetchall()
        found = [(name, conn.execute(_HASH.format(sql.Identifier(*name))).fetchone()) for name in tables]
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _prepare_databases(directory: Path, server: EmbeddedServer) -> str:
    """Empty databases, and the files that lie beside them."""
    with translating_errors("the embedded server"), server.connect(server.parameters()) as conn:
        for name in (_OPERATED, _EXTERNAL):
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        version = conn.info.parameter_status("server_version") or "?"
    for leftover in directory.glob("warehouse.db*"):
        leftover.unlink()
    for name in _list_files():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        replace_file(directory / name, (DEMO_FILES / name).read_bytes())
    return f"PostgreSQL {version}, in {directory / 'postgres'}"


def _migrate(pipeline: Pipeline) -> str:
    conn = connect_operated(pipeline.settings)
    try:
        result = apply_migrations(
            conn, discover(find_bundled("migrations")), schema=pipeline.settings.get("database.schema")
        )
    finally:
        conn.close()
    return f"{format_count(len(result.applied), 'migration', 'migrations')} applied"


def _run_statements(conn: Connection, names: tuple[str, ...]) -> Iterator[tuple[Customer, dict[str, Any], str, int]]:
    for customer in CUSTOMERS:
        values = {
            "tenancy": customer.tenancy,
            "project": customer.project,
            "name": customer.name,
            "users": customer.users,
        }
        for name in names:
            yield customer, values, name, conn.execute(_SQL[name], values).rowcount


def _seed(pipeline: Pipeline) -> str:
    counts: dict[str, int] = {}
    with open_operated_session(pipeline.settings) as conn, conn.transaction():
        for customer, _, name, rows in _run_statements(conn, ("project", "tenancy", *_SEED)):
            counts[name] = counts.get(name, 0) + rows
            if name == "channels" and customer is CUSTOMERS[0]:
                demo_shop.seed_ada(conn, customer.tenancy, customer.project)
                counts["users"] += 1
                counts["channels"] += 1
    return (
        f"{counts['users']:,} users, {counts['channels']:,} channels, {counts['teams']:,} teams, "
        f"{counts['members']:,} members, {counts['team_permissions'] + counts['project_permissions']:,} permissions, "
        f"{sum(counts[name] for name in ('preferences', 'sessions', 'accounts', 'emails', 'invitations')):,} other rows"
    )


def _open_shop(pipeline: Pipeline, directory: Path) -> str:
    customer = CUSTOMERS[0]
    with open_operated_session(pipeline.settings) as conn, conn.transaction():
        stripe = demo_shop.seed_shop(conn, customer.tenancy, customer.project, DEMO_FILES / "sign-up-rules.yaml")
    write_stand_in(directory / "stripe", stripe)
    return f"{customer.name}: 2 purchases, a subscription, a refund not yet settled, a stand-in for Stripe"


def _sequence(pipeline: Pipeline) -> str:
    result = service.sequence(
        pipeline,
        Stop(),
        interval=None,
        reports=service.Reports(),
    )
    return f"{result.rows:,} rows stamped in {len(result.by_table)} tables, {len(result.touched)} tenancies queued"


def _poll(pipeline: Pipeline) -> str:
    sent: dict[str, tuple[int, int]] = {}

    def synced(done: service.DatabaseResult) -> None:
        upserted, deleted = sent.get(done.database, (0, 0))
        if done.error is not None:
            raise done.error
        sent[done.database] = (
            upserted + sum(m.upserted for m in done.mappings),
            deleted + sum(m.deleted for m in done.mappings),
        )

    service.poll(pipeline, Stop(), claim_limit=8, interval=None, reports=service.Reports(synced=synced))
    return "; ".join(f"{name}: {up:,} rows sent, {gone:,} deleted" for name, (up, gone) in sorted(sent.items()))


def _change(pipeline: Pipeline) -> str:
    changed = deleted = returned = 0
    with open_operated_session(pipeline.settings) as conn, conn.transaction():
        changed = sum(rows for _, _, _, rows in _run_statements(conn, _CHANGES))
        for customer in CUSTOMERS:
            values: dict[str, Any] = {"tenancy": customer.tenancy, "project": customer.project}
            ids = [row[0] for row in conn.execute(_SQL["delete_users"], values)]
            back = ids[: len(ids) // 4]
            conn.execute(_SQL["return_users"], values | {"ids": back})
            deleted += len(ids)
            returned += len(back)
    return (
        f"{changed:,} rows changed, {deleted:,} users deleted with all they had, "
        f"{returned:,} of them re-created with the same address"
    )


def _compare(pipeline: Pipeline, checks: list[CheckedDatabase]) -> str:
    for databases in pipeline.databases.values():
        for database in databases:
            found = verify(pipeline, Scope([database.tenancy], [database.id]), Stop())
            for result in found:
                if result.error is not None:
                    raise result.error
            checks.append(CheckedDatabase(database.tenancy, database.id, database.type, tuple(found)))
    results = [result for checked in checks for result in checked.mappings]
    rows = sum(result.source_rows or 0 for result in results)
    differences = sum(not is_equal(result) for result in results)
    found = format_count(differences, "difference", "differences") if differences else "all equal"
    return f"{rows:,} rows, {found}"

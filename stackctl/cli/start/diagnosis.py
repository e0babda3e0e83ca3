"""`stackctl doctor`: what is wrong or missing, and what to do about it. Reads; changes nothing."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import psycopg

from stackctl.backend import tenancies
from stackctl.backend.drift import find_drift
from stackctl.backend.schema import SEQUENCE_INCREMENT
from stackctl.cli.fuse.shared import compose_fuse_on, describe_pause
from stackctl.core.bundled import find_bundled
from stackctl.core.errors import StackctlError, StateError
from stackctl.core.sentences import format_count
from stackctl.mapping.check import check_mappings as check_mappings
from stackctl.mapping.files import list_mapping_files
from stackctl.migrate.change_capture import describe_restore, detect_capture, find_excluded
from stackctl.migrate.folder import discover
from stackctl.migrate.runner.history import read_status as migration_status
from stackctl.migrate.sets import complete_sets, make_own_set
from stackctl.postgres.pooler import is_behind_pooler
from stackctl.postgres.statements import load_statements
from stackctl.sync.changes.sequence_position import refuse_low_sequence
from stackctl.sync.changes.sequenced_tables import TOMBSTONES, list_sequenced_tables
from stackctl.sync.changes.wakeup import refuse_shared_session
from stackctl.sync.check.mapping_differences import compare_copy
from stackctl.sync.pipeline import Pipeline
from stackctl.sync.queue import entries, fuses, pauses, retries
from stackctl.sync.target_states import StateReader
from stackctl.sync.targets.protocol import check_owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stackctl.config.settings import ExternalDatabase, Settings
    from stackctl.payments.gateway import Gateway
    from stackctl.postgres.connect import Connection
    from stackctl.sync.queue.pauses import Pause

OLDEST_SERVER = 140000  # PostgreSQL 14: the oldest that this is tested to understand
MOST_ACCOUNTS = 20  # tenancies whose connected accounts are looked at
CLOCK_SKEW = 5.0  # seconds between this machine and the server before it is worth a word
_SQL = load_statements(__file__)


@dataclass(frozen=True)
class Check:
    """One finding; `hint` names the fix where there is something to fix."""

    name: str
    status: Literal["ok", "warning", "error"]
    message: str
    hint: str | None = None


def run_checks(settings: Settings) -> Iterator[Check]:
    """Each check as it is done. One that fails ends only those that rest on it."""
    try:
        where = settings.config_path
        _ = settings.file
        yield Check("configuration", "ok", f"{where}" if where else "no stackctl.yaml; flags and environment only")
    except StackctlError as error:
        yield _failed("configuration", error)
        if settings.flags.database_url is None:
            return
    pipeline = Pipeline(settings)
    mapped, states = True, None
    paused: list[Pause] = []
    try:
        count = format_count(len(pipeline.mappings), "mapping", "mappings")
        yield Check("mappings", "ok", f"{count} in {', '.join(map(str, settings.mappings_dirs()))}")
    except StackctlError as error:
        mapped = False
        yield _failed("mappings", error)
    try:
        with pipeline.open_session() as conn:
            if mapped:
                with suppress(StackctlError):  # told below
                    pipeline.refresh(conn)
                    states = _ask_external_databases(pipeline)
            yield from _check_server(conn)
            yield from _check_pooler(conn, settings)
            yield from _check_migrations(conn, settings)
            if mapped and _has_tables(conn):
                yield from _check_schema(conn, pipeline)
                paused = pauses.list_pauses(conn)
                yield from _check_pipeline(conn, pipeline, paused)
            yield from _check_payments(conn, settings)
    except StackctlError as error:
        yield _failed("database", error)
    if mapped:
        yield from _check_external_databases(pipeline, states, paused)


def _failed(name: str, error: StackctlError) -> Check:
    return Check(name, "error", error.message, error.hint)


def _check_server(conn: Connection) -> Iterator[Check]:
    row = conn.execute(_SQL["server"]).fetchone()
    assert row is not None
    number, version, standby, clock, read_only = row
    if number < OLDEST_SERVER:
        yield Check("database", "warning", f"PostgreSQL {version} is older than 14", "upgrade the server")
    elif standby:
        yield Check(
            "database", "error", "this is a standby: nothing can be written", "name the primary in database.url"
        )
    elif read_only:
        yield Check("database", "error", "transactions of this role are read-only", "connect as a role that may write")
    else:
        yield Check("database", "ok", f"PostgreSQL {version}")
    skew = abs(time.time() - clock)
    if skew > CLOCK_SKEW:
        yield Check(
            "clock", "warning", f"this machine and the server are {skew:.0f} s apart", "synchronise both clocks (NTP)"
        )


def _check_pooler(conn: Connection, settings: Settings) -> Iterator[Check]:
    """Nothing where there is none."""
    if is_behind_pooler(conn):

        def describe() -> str:
            if settings.get("sync.wakeup") == "notify":
                refuse_shared_session(conn)
            return "one is in front of the server; `stackctl migrate up` needs it in session mode, or the server itself"

        yield _run_check("pooler", describe)


def _check_migrations(conn: Connection, settings: Settings) -> Iterator[Check]:
    try:
        schema, capture = settings.get("database.schema"), settings.get("database.change_capture")
        folder, history = settings.own_migrations_dir(), settings.get("migrations.history") or ""
        own = make_own_set(discover(folder), history) if folder else None
        found = [
            migration_status(
                conn,
                each.migrations,
                schema,
                find_excluded(conn, each.migrations, schema, capture, each.history),
                each.names_elsewhere,
                each.history,
            )
            for each in complete_sets(conn, own, schema)
        ]
    except StackctlError as error:
        yield _failed("migrations", error)
        return
    pending = sum(len(each.pending) for each in found)
    if pending:
        yield Check("migrations", "error", f"{pending} pending", "run `stackctl migrate up`")
    elif names := [name for each in found for name in (*each.drifted, *each.unknown)]:
        yield Check("migrations", "warning", f"edited or unknown: {', '.join(names)}", "see `stackctl migrate verify`")
    else:
        applied = sum(len(each.applied) for each in found)
        yield Check("migrations", "ok", f"{applied} applied, none pending")


def _has_tables(conn: Connection) -> bool:
    """Whether there is anything to look at; a database never migrated has one finding, not twenty."""
    row = conn.execute(_SQL["has_tables"]).fetchone()
    return bool(row and row[0])


def _check_schema(conn: Connection, pipeline: Pipeline) -> Iterator[Check]:
    problems = [
        f
        for f in check_mappings(list_mapping_files(*pipeline.settings.mappings_dirs()), catalog=conn)
        if f.severity == "error"
    ]
    for finding in problems:
        yield Check(
            "mappings",
            "error",
            f"{finding.file}:{finding.line}:{finding.column}: {finding.message}",
            finding.suggestion or "run `stackctl migrate up --bundled`, or correct the mapping",
        )
    tables = [source.table for source in list_sequenced_tables(pipeline.mappings.values())]
    lacking = conn.execute(_SQL["missing_rights"], {"tables": [*tables, TOMBSTONES]}).fetchall()
    if lacking:
        yield Check(
            "privileges",
            "error",
            "this role lacks " + ", ".join(f'{privilege} on "{name}"' for name, privilege in lacking),
            "grant these rights, or connect as the owner of the tables",
        )
    else:
        yield Check("privileges", "ok", "this role may stamp and queue")
    yield _run_check("row security", lambda: _check_row_security(conn, pipeline))
    different = [Check("schema", drift.severity, drift.message, drift.hint) for drift in find_drift(conn)]
    yield from different or [Check("schema", "ok", "tables, columns, keys and indexes are a live backend's")]
    yield from _check_sequence(conn, pipeline)
    yield from _check_capture(conn, pipeline, tables)


def _check_row_security(conn: Connection, pipeline: Pipeline) -> str:
    pipeline.refuse_hidden_rows(conn, pipeline.mappings.values())
    return "no policy hides rows from this role"


def _check_sequence(conn: Connection, pipeline: Pipeline) -> Iterator[Check]:
    row = conn.execute(_SQL["sequence"]).fetchone()
    if row is None:
        yield Check("sequence", "error", "global_seq_id does not exist", "run `stackctl migrate up --bundled`")
        return
    increment, cache, is_bigint, cycles = row
    if cache > 1:
        yield Check(
            "sequence",
            "error",
            f"global_seq_id has CACHE {cache}: ids would be given out of order, and rows skipped",
            "ALTER SEQUENCE global_seq_id CACHE 1",
        )
    elif increment < 1 or not is_bigint or cycles:
        yield Check(
            "sequence",
            "error",
            "global_seq_id must be an ascending bigint sequence that does not cycle",
            f"ALTER SEQUENCE global_seq_id AS bigint INCREMENT BY {SEQUENCE_INCREMENT} NO CYCLE",
        )
    elif increment != SEQUENCE_INCREMENT:
        yield Check(
            "sequence",
            "warning",
            f"global_seq_id has increment {increment}, a backend's has {SEQUENCE_INCREMENT}",
            f"ALTER SEQUENCE global_seq_id INCREMENT BY {SEQUENCE_INCREMENT}",
        )
    else:
        try:
            refuse_low_sequence(conn, pipeline.mappings.values())
        except StateError as error:
            yield _failed("sequence", error)
        else:
            yield Check("sequence", "ok", f"global_seq_id, increment {increment}, no cache")


def _check_capture(conn: Connection, pipeline: Pipeline, tables: list[str]) -> Iterator[Check]:
    settings = pipeline.settings
    setting, schema = settings.get("database.change_capture"), settings.get("database.schema")
    files = discover(find_bundled("migrations"))
    if detect_capture(conn, files, schema, setting) == "application":
        yield from _check_application_capture(found_out=setting == "auto")
        return
    bare = [
        f'"{name}" ({" and ".join(what for what, missing in (("updates", a), ("deletes", b)) if missing)})'
        for name, a, b in conn.execute(_SQL["uncaptured"], {"tables": tables})
        if a or b
    ]
    triggers = conn.execute(_SQL["list_silent_triggers"], {"tables": tables}).fetchall()
    off = {shown: fix for is_off, shown, fix in triggers if is_off}
    if not bare and not off:
        passed_by = {shown: fix for _, shown, fix in triggers}
        if passed_by:
            yield Check(
                "capture",
                "warning",
                "what a session with session_replication_role = replica changes passes by triggers of"
                f" {', '.join(passed_by)}",
                "; ".join(passed_by.values()),
            )
        else:
            yield Check(
                "capture",
                "ok",
                f"triggers capture updates and deletes of {format_count(len(tables), 'table', 'tables')}",
            )
        return
    what = [f"no trigger captures the changes of {', '.join(bare)}"] if bare else []
    what += [f"triggers are switched off: {', '.join(off)}"] if off else []
    hint = "; ".join(off.values()) or describe_restore(conn, files, schema)
    yield Check(
        "capture",
        "error",
        "; ".join(what),
        f"{hint}; and `stackctl verify --repair` for what changed meanwhile. If the application marks its rows, set"
        " database.change_capture: application",
    )


def _check_application_capture(*, found_out: bool) -> Iterator[Check]:
    means = (
        "deletes made outside it, cascades included, stay in the copies until `stackctl verify --repair` repairs them"
    )
    if found_out:
        yield Check(
            "capture",
            "warning",
            f"no trigger captures changes, so the application is taken to mark its rows; {means}",
            "say so (database.change_capture: application), or set it to triggers, then: stackctl migrate up --bundled",
        )
    else:
        yield Check("capture", "ok", f"the application marks changed rows (change_capture: application); {means}")


def _check_pipeline(conn: Connection, pipeline: Pipeline, paused: list[Pause]) -> Iterator[Check]:
    state = fuses.read_fuses(conn)
    off = [name for name in ("sequencer", "poller") if not getattr(state, name)]
    if off:
        yield Check(
            "fuses", "warning", f"off: {', '.join(off)}", f"`stackctl fuse on {off[0]}` when the reason is gone"
        )
    else:
        yield Check("fuses", "ok", "both on")
    for pause in paused:
        yield Check("pauses", "warning", describe_pause(pause), f"`{compose_fuse_on(pause)}` when the reason is gone")
    waiting = entries.summarize_queue(conn)
    if waiting.dead or waiting.stale:
        yield Check(
            "queue",
            "warning",
            f"{format_count(waiting.stale, 'expired claim', 'expired claims')}, "
            f"{format_count(waiting.dead, 'database', 'databases')} given up",
            "`stackctl queue list` says why, `stackctl queue retry --all` tries again",
        )
    else:
        yield Check("queue", "ok", f"{waiting.pending} pending, {waiting.in_flight} in flight")
    strange = set(pipeline.databases) - entries.find_existing_tenancies(conn, pipeline.databases)
    for tenancy in sorted(strange):
        yield Check("tenancies", "error", f"tenancy {tenancy} does not exist", 'correct its id; they are in "Tenancy"')
    for failure in retries.list_failures(conn):
        if pauses.find_pause(paused, failure.tenancy, failure.database, failure.mapping):
            continue
        since = f"{failure.failing_since:%Y-%m-%d %H:%M:%S}"
        yield Check(
            "/".join(map(str, filter(None, (failure.tenancy, failure.database, failure.mapping)))),
            "error",
            f"{f'{failure.mapping} is ' if failure.mapping else ''}failing since {since}, "
            f"{format_count(failure.attempts, 'attempt', 'attempts')}: {failure.error}",
            "fix the cause; it is retried automatically, or at once by `stackctl queue retry`",
        )


def _list_external_databases(pipeline: Pipeline) -> list[ExternalDatabase]:
    return [database for found in pipeline.databases.values() for database in found]


def _ask_external_databases(pipeline: Pipeline) -> StateReader:
    """They answer while the rest is looked at."""
    return StateReader(pipeline, _list_external_databases(pipeline))


def _check_external_databases(pipeline: Pipeline, states: StateReader | None, paused: list[Pause]) -> Iterator[Check]:
    try:
        databases = _list_external_databases(pipeline)
        states = states or _ask_external_databases(pipeline)
    except StackctlError as error:
        yield _failed("external databases", error)
        return
    backend = pipeline.settings.get("external_databases_from") == "backend"
    if not databases:
        place = (
            "`dbSync.externalDatabases` in the backend's configuration" if backend else "`tenancies:` in stackctl.yaml"
        )
        yield Check("external databases", "warning", "none is configured", f"add one under {place}")
    if backend and pipeline.settings.tenancies():
        yield Check(
            "external databases",
            "warning",
            "`tenancies:` in stackctl.yaml is not used: external_databases_from is backend",
            "take it out, or set external_databases_from: config",
        )
    for database in databases:
        if pauses.find_pause(paused, database.tenancy, database.id):
            yield Check(f"{database.tenancy}/{database.id}", "ok", "paused")
            continue
        yield _run_check(
            f"{database.tenancy}/{database.id}",
            lambda database=database: _check_external_database(pipeline, states, database),
        )
        yield from _check_copies(pipeline, states, database)


def _check_copies(pipeline: Pipeline, states: StateReader, database: ExternalDatabase) -> Iterator[Check]:
    """Copies that no mapping feeds, and those that were made from another version of theirs."""
    try:
        state = states.read(database)
    except StackctlError:
        return  # it is told already
    if state is None:
        return
    name = f"{database.tenancy}/{database.id}"
    for mapping in pipeline.find_unfed(database, state.cursors):
        message = f"nothing feeds the copy of {mapping}: its rows are as old as the mapping's removal"
        hint = "restore the mapping, or drop the table and the row of that name in _stack_sync_metadata"
        yield Check(name, "warning", message, hint)
    for one in pipeline.compile_mappings(database):
        try:
            kind, reasons = compare_copy(one, state)
        except StackctlError as error:
            yield _failed(name, error)
            continue
        changed = f"the mapping {one.mapping.name} has changed: {', '.join(reasons)}"
        place = f"stackctl sync {database.tenancy} --database {database.id}"
        if kind == "rebuild" or (kind in ("alter", "resend") and not pipeline.change_policy.evolve):
            yield Check(name, "error", changed, f"`{place} --rebuild {one.mapping.name}`, or revert the change")
        elif reasons:
            yield Check(name, "warning", changed, f"the next sync follows it: `{place}`")


def _check_payments(conn: Connection, settings: Settings) -> Iterator[Check]:
    """Stripe's key and the connected accounts; nothing where neither is."""
    from stackctl.payments import connection

    try:
        connected = connection.list_connected_tenancies(conn, MOST_ACCOUNTS + 1)
        platform = connection.open_gateway(settings, None)
    except psycopg.errors.UndefinedTable:
        return
    except StackctlError as error:
        yield _failed("stripe", error)
        return
    if platform is None:
        if connected:
            yield Check("stripe", "warning", "projects are connected to Stripe, and no key is set",
                        "set payments.stripe_api_key, or STRIPE_API_KEY")  # fmt: skip
        return
    try:
        holder, answered, own = platform.get_key_holder()
    except StackctlError as error:
        yield _failed("stripe", error)
        return
    asked = platform.api_version
    if answered in (None, asked):
        differs = f"; the account's own is {own}, in which its events come" if own not in (None, asked) else ""
        good = f"the {platform.mode} key of {holder} is good; API version {asked} is asked for{differs}"
        yield Check("stripe", "ok", good)
    else:
        yield Check("stripe", "warning", f"API version {asked} was asked for, and {answered} answers",
                    "upgrade stackctl, or ask Stripe's support")  # fmt: skip
    modes: dict[str, list[str]] = {}
    for tenancy, account in connected[:MOST_ACCOUNTS]:
        layers = tenancies.read_layers(conn, tenancy)
        if connection.is_test_mode(layers) != (platform.mode == "test"):
            modes.setdefault(account, []).append(str(tenancy))
    for account in dict.fromkeys(account for _, account in connected[:MOST_ACCOUNTS]):
        yield _check_account(platform, account, modes.get(account, []))
    if len(connected) > MOST_ACCOUNTS:
        yield Check("stripe", "ok", f"the first {MOST_ACCOUNTS} connected tenancies were looked at")


def _check_account(platform: Gateway, account: str, of_other_mode: list[str]) -> Check:
    from stackctl.payments import connection

    name = f"stripe {account}"
    try:
        due, charges = connection.read_readiness(platform, account)
    except StackctlError as error:
        return _failed(name, error)
    if due or not charges:
        waits = f"Stripe waits for {', '.join(due)}" if due else "it can't take charges"
        return Check(name, "warning", waits, "finish the account's setup in Stripe's dashboard")
    if of_other_mode:
        other = "test" if platform.mode == "live" else "live"
        return Check(
            name, "warning", f"the key is a {platform.mode} key, and {', '.join(of_other_mode)} in {other} mode",
            "`stackctl payments test-mode` switches the project, STRIPE_API_KEY the key",
        )  # fmt: skip
    return Check(name, "ok", "reachable, may take charges")


def _run_check(name: str, work: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", work())
    except StackctlError as error:
        return _failed(name, error)


def _check_external_database(pipeline: Pipeline, states: StateReader, database: ExternalDatabase) -> str:
    resolved = pipeline.settings.resolve_database(database)
    try:
        state = states.read(database)
    except StateError as error:
        if error.code != "lock-timeout" or resolved.path is None:
            raise
        return f"{error.message}; it can be looked at when it is free"
    if state is None:
        return f"{resolved.connection}: will be created by the first sync"
    if state.operated:
        raise StateError(
            f"{resolved.connection} holds the backend's own tables", code="operated-database", hint="name another one"
        )
    check_owner(state.owner, database.tenancy, resolved.connection)
    synced = sum(cursor.sequence_id >= 0 for cursor in state.cursors.values())
    return f"{resolved.connection}: reachable, {format_count(synced, 'mapping', 'mappings')} synced"

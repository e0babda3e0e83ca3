"""Stage 5: what an external database must be able to do, and which kinds there are.

A target keeps its own cursors, so that rows and cursor commit together. The methods between `locked` and its end run
in that one transaction.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, LiteralString, Protocol

from stackctl.core.errors import AnswerNo, ServiceError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from uuid import UUID

    from stackctl.config.settings import ExternalDatabase
    from stackctl.mapping.checksums import Key, Sums
    from stackctl.mapping.compile import Compiled
    from stackctl.mapping.dialect import Dialect
    from stackctl.sync.engine.prefetch import PiecesAhead
    from stackctl.sync.engine.row_stream import Amount, RowStream
    from stackctl.sync.targets.mapping_changes import ChangePolicy

    Rows = RowStream | PiecesAhead

SHOWN_KEYS = 5  # of rows that are swallowed
NEVER_SYNCED = -1  # the cursor of a mapping that was never loaded
SOURCE_REWOUND = -2  # the cursor of a copy that is ahead of its source: refused until it is loaded again
RESTORE = "restore the table, or drop it: it is made and filled again"  # what to do about a table that was changed
PATIENCE = 60.0  # seconds without an answer after which a target counts as hung
LONG_PATIENCE = 1800.0  # the same while a whole table is emptied or filled


@dataclass(frozen=True)
class AppliedBatch:
    """What one batch did to a copy. `rows` were read, up to the sequence id `highest` (0: none).

    `amount`: how much the page had, for the size of the next one.
    """

    rows: int
    upserted: int
    deleted: int
    highest: int = 0
    amount: Amount | None = None


@dataclass(frozen=True)
class Cursor:
    """How far a mapping has come; `updated_at` is UTC."""

    sequence_id: int
    updated_at: datetime


@dataclass(frozen=True)
class CopyRecord:
    """What a copy was made from, as it stands beside the cursor: the mapping's fingerprint and definition.

    Rows with stamps above `resend_after` and not above `resend_up_to` are still to be sent again; None: there are none.
    """

    fingerprint: str
    definition: str
    resend_after: int | None = None
    resend_up_to: int | None = None


@dataclass(frozen=True)
class TargetState:
    """An external database as it stands: the tenancy it belongs to (None: nobody's yet), and its cursors by mapping.

    `operated`: it holds the backend's own tables, and must not be synced into. `places`: where the operated database
    lived when it fed the copies, by mapping (see changes/source_identity.py). `copies` has the records by mapping; of
    older copies there are none. `followed`: what was just done to make copies follow their mappings, for people.
    `foreign`: why the tables of these mappings are not ours, of those that it was asked for.
    """

    owner: UUID | None
    cursors: dict[str, Cursor]
    operated: bool = False
    places: dict[str, str] = field(default_factory=dict[str, str])
    copies: dict[str, CopyRecord] = field(default_factory=dict[str, CopyRecord])
    followed: tuple[str, ...] = ()
    foreign: dict[str, StateError] = field(default_factory=dict[str, StateError])


BINARY: LiteralString = "FORMAT binary"
CSV: LiteralString = "FORMAT csv, FORCE_QUOTE *"


@dataclass(frozen=True)
class StreamFormat:
    """How a kind of target takes a stream; `options` are those of the COPY that it is read by."""

    read: Callable[[RowStream], Iterator[Any]]
    options: LiteralString = BINARY


class ResponseTimer:
    """Since when, by the monotonic clock, somebody waits for an answer of the target; None: nobody does.

    `patience` is how many seconds without an answer are normal.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self.patience = PATIENCE

    @property
    def seconds_waiting(self) -> float:
        since = self.since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def is_overdue(self) -> bool:
        return self.seconds_waiting > self.patience

    def start(self) -> None:
        self.since = time.monotonic()

    def stop(self) -> None:
        self.since = None

    @contextmanager
    def __call__(self) -> Iterator[ResponseTimer]:
        self.start()
        try:
            yield self
        finally:
            self.stop()

    @contextmanager
    def allow_long_waits(self) -> Iterator[None]:
        """Inside, single steps may take long: a whole table is emptied or filled."""
        self.patience = LONG_PATIENCE
        try:
            yield
        finally:
            self.patience = PATIENCE


class Target(Protocol):
    """One open external database. Errors of its driver come out as StackctlErrors.

    A value that it does not take is an error with the code `row-refused`: the engine finds the row and goes on. So is a
    row that it takes without writing it, or deleting it, as a trigger can do.
    Without `keep_open` it is closed as soon as a sync is done, because nobody else can open it meanwhile.
    """

    dialect: Dialect
    response_timer: ResponseTimer
    stream_format: StreamFormat
    keep_open: bool

    def abort(self) -> None:
        """From another thread: break off what waits; whoever waits gets `connection-lost`."""
        ...

    def prepare(self, tenancy: UUID, compiled: Sequence[Compiled], policy: ChangePolicy) -> TargetState:
        """Claim the database for the tenancy, create what is missing, check what exists; the state after that.

        Copies that were made from another version of their mapping follow it, as far as the policy says so.
        Raises StateError `other-tenancy`, `operated-database`, `table-differs`, `mapping-changed`, `newer-stackctl`.
        """
        ...

    def read_state(self, compiled: Sequence[Compiled] = ()) -> TargetState:
        """What stackctl knows of itself there, and which of these mappings' tables are not ours; reads only."""
        ...

    def lock_cursor(
        self, compiled: Compiled, *, adopt: bool = False, rebuild: bool = False
    ) -> AbstractContextManager[int]:
        """One transaction that holds the mapping's cursor; two engines on one mapping serialise here.

        Yields the cursor; commits at the end, rolls back on an error. A table that has rows and no cursor is not ours:
        raises StateError `not-ours`, unless it is to be adopted. Raises StateError `mapping-changed` for a copy that is
        not made from this mapping, unless `rebuild`.
        """
        ...

    def apply_batch(
        self, compiled: Compiled, batch: Rows, on_read: Callable[[int, int], None] | None = None
    ) -> AppliedBatch:
        """Upsert the rows of a batch that were found, delete those that were not.

        `on_read` (rows, highest sequence id) is told when the source has been read to the end of the batch.
        """
        ...

    def is_empty(self, compiled: Compiled) -> bool:
        """Whether the table has no rows."""
        ...

    def append_rows(self, compiled: Compiled, rows: Rows) -> AppliedBatch:
        """Put rows into the table that it does not have yet, the fastest way; `rows` has the mapping's columns only.

        A row that is there may be an error, which ends the transaction.
        """
        ...

    def replace_rows(self, compiled: Compiled, rows: Rows) -> AppliedBatch:
        """Make the table equal to these rows: all are upserted, and those that it has besides are deleted.

        Nothing else is: consumers may hang rows of theirs on ours. An empty table may be filled in another way.
        """
        ...

    def rebuild_table(self, compiled: Compiled, rows: Rows) -> AppliedBatch:
        """Give the table the mapping's shape and these rows; readers see the old one, or wait, until that is done.

        What others hang on it (columns, indexes, grants, views) is kept. Raises StateError `mapping-changed` naming
        what could not be, and then nothing has happened.
        """
        ...

    def advance_cursor(self, compiled: Compiled, cursor: int) -> None:
        """Set the cursor, also to what it was: every write to a mapping's rows is followed by this."""
        ...

    def record_place(self, compiled: Compiled, identity: str) -> None:
        """Write down, under the cursor's lock, where the operated database lives that feeds the mapping's copy."""
        ...

    def read_record(self, compiled: Compiled) -> CopyRecord | None:
        """What is written down of the copy."""
        ...

    def write_record(self, compiled: Compiled, record: CopyRecord) -> None:
        """Write it down, or write it anew."""
        ...

    def read_cursor_version(self, compiled: Compiled) -> str:
        """Changes whenever the mapping's cursor row is written, by anybody."""
        ...

    def sum_hashes(self, compiled: Compiled) -> Sums:
        """Count and sum of the hashes of all rows, by bucket; see mapping/checksums.py."""
        ...

    def read_hashes(self, compiled: Compiled, wanted: Collection[int]) -> list[tuple[Any, ...]]:
        """Of the rows in these buckets: the key's columns as text, and the row's hash."""
        ...

    def read_hashes_by_key(self, compiled: Compiled, keys: Collection[Key]) -> list[tuple[Any, ...]]:
        """The same of the rows with these keys, as far as they exist."""
        ...

    def close(self) -> None: ...


def format_unfed(mapping: str) -> str:
    """What to say of a cursor that no mapping feeds."""
    return (
        f"nothing feeds the copy of {mapping}, as no mapping has its name there: its rows stay as they are, until you"
        " drop the table and its row in _stack_sync_metadata"
    )


def check_owner(owner: UUID | None, tenancy: UUID, where: str) -> None:
    """Two tenancies never share an external database: their rows and cursors would mix."""
    if owner is not None and owner != tenancy:
        raise StateError(
            f"{where} already holds the data of tenancy {owner}; tenancy {tenancy} can't be synced into it",
            code="other-tenancy",
            hint="give each tenancy a database of its own",
            details={"owner": str(owner), "tenancy": str(tenancy)},
        )


def replaced_error(where: str) -> ServiceError:
    """A file that was deleted or replaced while it was open: what is written into it is lost with it."""
    return ServiceError(f"{where}: the file was replaced, or is gone", code="connection-lost", hint="try again")


def add_foreign_tables(
    state: TargetState,
    compiled: Iterable[Compiled],
    holds_rows: Callable[[Compiled], bool],
    database: ExternalDatabase,
    where: str,
) -> TargetState:
    """The state, with those of these mappings' tables that hold rows without a cursor."""
    unloaded = [one for one in compiled if one.mapping.name not in state.cursors]
    foreign = {one.mapping.name: not_ours_error(one, database, where) for one in unloaded if holds_rows(one)}
    return replace(state, foreign=foreign)


def not_ours_error(compiled: Compiled, database: ExternalDatabase, where: str) -> StateError:
    """What a table holds that was never loaded is somebody else's: a load would delete it."""
    mapping = compiled.mapping
    command = f"stackctl sync {database.tenancy} --database {database.id} --mapping {mapping.name} --adopt"
    return StateError(
        f'{where}: the table "{mapping.target}" has rows, and stackctl has never loaded it',
        code="not-ours",
        hint=f"rename it, or let it become the copy, which deletes every row that the source lacks: `{command}`",
        details={"table": mapping.target},
    )


def swallowed_error(compiled: Compiled, where: str, keys: Sequence[Sequence[object]]) -> AnswerNo:
    """Rows that a table took and did not write, or did not delete: some of them, by key."""
    named = "; ".join(", ".join(map(str, key)) for key in keys)
    return AnswerNo(
        f'{where}: the table "{compiled.mapping.target}" silently drops rows ({named}):'
        " a trigger or a rule there passes over them",
        code="row-refused",
        details={"keys": [list(map(str, key)) for key in keys]},
    )


def two_rows_error(compiled: Compiled) -> AnswerNo:
    """Which of two rows for one key is right nobody can tell: the batch stops."""
    name = compiled.mapping.name
    return AnswerNo(
        f"the mapping {name} yields two rows for one key",
        code="two-rows-for-a-key",
        hint=f"correct the joins in its select: at most one row for each ({', '.join(compiled.mapping.key)})",
    )

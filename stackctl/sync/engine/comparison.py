"""One copy compared with its source row for row, without moving the rows; and differences repaired.

Each side sums hashes of its rows in buckets of keys; of the buckets that differ, it gives the keys with the row's
hash. That yields candidates and nothing more, because the two sides were read at different times while changes flow.
Each candidate is looked at once more under the lock of the copy's cursor, when nobody writes the copy, and what is
still on its way there is no difference.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from psycopg.types.json import Jsonb

from stackctl.mapping.checksums import compile_checksums, spell_key
from stackctl.sync.engine import rejected_rows
from stackctl.sync.engine.repair import KEYS_AT_ONCE, can_be_in_source, repair_rows, split_differing_buckets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from uuid import UUID

    from stackctl.core.errors import StackctlError
    from stackctl.mapping.checksums import Key, Sums
    from stackctl.mapping.compile import Compiled
    from stackctl.sync.engine.source import Source
    from stackctl.sync.stop import StopRequest
    from stackctl.sync.targets.protocol import Target

Kind = Literal["missing", "extra", "different"]


@dataclass
class VerifyResult:
    """What one mapping of one database came to; the counts of rows are None where nothing was compared.

    `in_flight`: keys that differ because a change has not been sent yet. They are no differences. `rejected`: of the
    differences that are left, the rows that the target does not take, with the reason.
    """

    tenancy: UUID
    database: str
    mapping: str
    source_rows: int | None = None
    target_rows: int | None = None
    missing: int = 0
    extra: int = 0
    different: int = 0
    repaired: int = 0
    in_flight: int = 0
    rejected: dict[Key, str] = field(default_factory=dict["Key", str])
    error: StackctlError | None = None
    interrupted: bool = False
    duration_ms: int = 0

    @property
    def differences(self) -> int:
        return self.missing + self.extra + self.different

    @property
    def ok(self) -> bool:
        return self.error is None and not self.interrupted and self.differences == self.repaired


class CopyComparison:
    """One mapping of one tenancy against one copy; counts in `check`.

    `accept_cursor` is given the copy's cursor, under its lock: it says up to which stamp the copy is to be right, or
    raises. Rows with later ones are in flight. `on_rejected` is told of rows that the target does not take; without it,
    the first of them is the check's error.
    """

    def __init__(
        self,
        source: Source,
        target: Target,
        compiled: Compiled,
        check: VerifyResult,
        *,
        accept_cursor: Callable[[int], int],
        repair: bool,
        stop: StopRequest,
        on_rejected: Callable[[Key, StackctlError], None] | None = None,
    ) -> None:
        self._source = source
        self._target = target
        self._compiled = compiled
        self._mapping = compiled.mapping
        self._check = check
        self._accept_cursor = accept_cursor
        self._repair = repair
        self._stop = stop
        self._on_rejected = on_rejected or self._record_error
        self._statements = compile_checksums(compiled.mapping, target.dialect)
        self._rejected: dict[Key, str] = {}

    def run(self, on_rows: Callable[[int, str], None]) -> None:
        # The target works in a thread of its own while the source works in this one.
        with ThreadPoolExecutor(1, thread_name_prefix="stackctl-verify") as beside:
            self._run(beside, on_rows)

    def _run(self, beside: ThreadPoolExecutor, on_rows: Callable[[int, str], None]) -> None:
        check = self._check
        self._rejected = {
            spell_key(self._mapping, self._target.dialect, row.key): row.error
            for row in rejected_rows.list_rows(self._source.primary, check.tenancy, check.database)
            if row.mapping == check.mapping
        }
        target_sums = beside.submit(self._target.sum_hashes, self._compiled)
        ours, theirs = self._read_source_sums(), target_sums.result()
        check.source_rows = sum(rows for rows, _ in ours.values())
        check.target_rows = sum(rows for rows, _ in theirs.values())
        on_rows(check.source_rows, check.mapping)
        for buckets in split_differing_buckets(ours, theirs):
            candidates = self._find_candidates(beside, buckets)
            for start in range(0, len(candidates), KEYS_AT_ONCE):
                if self._stop.requested:
                    check.interrupted = True
                    return
                self._count_differences(candidates[start : start + KEYS_AT_ONCE])
                self._stop.note_step()

    def _read(self, statement: Any, **parameters: Any) -> list[tuple[Any, ...]]:
        with self._source.open_snapshot(self._mapping.name) as conn:
            # Everything is read: see Source.load.
            conn.execute("SET LOCAL enable_nestloop = off")
            return conn.execute(statement, {"tenancy_id": self._check.tenancy} | parameters).fetchall()

    def _read_source_sums(self) -> Sums:
        rows = self._read(self._statements.source.sums)
        return {bucket: (count, int(total)) for bucket, count, total in rows}

    def _find_candidates(self, beside: ThreadPoolExecutor, buckets: list[int]) -> list[Key]:
        """The keys whose rows were not the same on both sides, each at its own time."""
        found = beside.submit(self._target.read_hashes, self._compiled, buckets)
        ours = _group_by_key(self._read(self._statements.source.hashes, wanted=buckets))
        theirs = _group_by_key(found.result())
        return sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))

    # -- candidates

    def _count_differences(self, keys: list[Key]) -> None:
        """Count what these keys come to, and repair it; a row that is rejected is counted only."""
        for key, error in rejected_rows.isolate_rejected(keys, partial(self._compare_again, repair=self._repair)):
            self._on_rejected(key, error)
            self._rejected[key] = error.message
            self._compare_again([key], repair=False)

    def _record_error(self, key: Key, error: StackctlError) -> None:
        self._check.error = self._check.error or error

    def _compare_again(self, keys: Sequence[Key], *, repair: bool) -> None:
        """Count which of the keys differ now, and of these which don't any more at the end of the transaction."""
        with self._target.lock_cursor(self._compiled) as cursor:
            right_up_to = self._accept_cursor(cursor)
            found, in_flight = self._find_differences(right_up_to, keys)
            left = set(found)
            if repair and found:
                repair_rows(self._source, self._target, self._compiled, self._check.tenancy, list(found))
                # Whoever reads ahead of its lock must see that somebody wrote.
                self._target.advance_cursor(self._compiled, cursor)
                left &= self._find_differences(right_up_to, list(found))[0].keys()
        count = Counter(found.values())
        self._check.missing += count["missing"]
        self._check.extra += count["extra"]
        self._check.different += count["different"]
        self._check.repaired += len(found.keys() - left)
        self._check.in_flight += in_flight
        self._check.rejected |= {key: self._rejected[key] for key in left if key in self._rejected}

    def _find_differences(self, cursor: int, keys: Sequence[Key]) -> tuple[dict[Key, Kind], int]:
        """Of a copy that stands still at `cursor`: what differs, and how many keys are in flight."""
        self._source.wait_for_replica()
        known = Jsonb([key for key in keys if can_be_in_source(self._mapping, key)])
        asked = {"tenancy_id": self._check.tenancy, "cursor": cursor, "keys": known}
        with self._source.open_snapshot(self._mapping.name) as conn:
            ours = _group_by_key(conn.execute(self._statements.source.by_key, asked))
            moving = {tuple(row) for row in conn.execute(self._statements.in_flight, asked)}
        theirs = _group_by_key(self._target.read_hashes_by_key(self._compiled, keys))
        differing = [key for key in keys if ours.get(key) != theirs.get(key)]
        found: dict[Key, Kind] = {
            key: "missing" if key not in theirs else "extra" if key not in ours else "different"
            for key in differing
            if key not in moving
        }
        return found, len(differing) - len(found)


def _group_by_key(rows: Iterable[tuple[Any, ...]]) -> dict[Key, tuple[int, ...]]:
    """The hash of each key's row; of several rows for a key, which a copy without its key may have, all of them."""
    found: dict[Key, tuple[int, ...]] = {}
    for *key, hash_ in rows:
        name = tuple(key)
        found[name] = tuple(sorted((*found.get(name, ()), hash_)))
    return found

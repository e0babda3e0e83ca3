"""Who hears of what happens in the loops, and what is news there."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.mapping.files import list_mapping_files
from stackctl.sync.queue import retries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from uuid import UUID

    from stackctl.config.settings import Settings
    from stackctl.core.errors import StackctlError
    from stackctl.postgres.connect import Connection
    from stackctl.sync.changes.sequencer import SequenceResult
    from stackctl.sync.configuration import Reload
    from stackctl.sync.engine.database_sync import DatabaseResult
    from stackctl.sync.engine.poller import PollResult

FILES_INTERVAL = 2.0  # seconds between two looks at the files


@dataclass(frozen=True)
class Reports:
    """Who hears of what, as it happens; called from the thread in which it happens.

    `stamped` hears of each batch of the sequencer, `sequenced` and `polled` of each pass of a loop that did
    something, `synced` of each attempt on a database. In a loop, `failing` hears of a database that has begun to fail,
    fails otherwise than before, or was given up, and `recovered` of one that has stopped; `trouble` of each time the
    operated database could not be had, and `regained` when it can again; `reloaded` of each time the configuration file
    was read again; `warned` of anything else, once.
    """

    stamped: Callable[[int], None] = lambda rows: None
    sequenced: Callable[[SequenceResult], None] = lambda result: None
    polled: Callable[[PollResult], None] = lambda result: None
    synced: Callable[[DatabaseResult], None] = lambda result: None
    failing: Callable[[retries.Failure], None] = lambda failure: None
    recovered: Callable[[retries.Failure], None] = lambda failure: None
    trouble: Callable[[StackctlError], None] = lambda error: None
    regained: Callable[[], None] = lambda: None
    reloaded: Callable[[Reload], None] = lambda reload: None
    warned: Callable[[str], None] = lambda text: None


class OutcomeReporter:
    """What the attempts of a loop came to, of which only the changes are told."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._warned = hear_once(reports.warned)
        self._failing: dict[tuple[UUID, str], retries.Failure] = {}

    def tell(self, result: DatabaseResult) -> None:
        """What was done, and what is to be said of it once."""
        self._reports.synced(result)
        for remark in result.remarks:
            self._warned(f"{result.tenancy} {result.database}: {remark}")

    def report(self, conn: Connection, result: DatabaseResult) -> None:
        """After the outcome was recorded; `conn` reads what was."""
        self.tell(result)
        key = (result.tenancy, result.database)
        before = self._failing.get(key)
        if result.error is None and (before is None or result.interrupted):
            return
        # A mapping that rests was not tried, and still fails.
        failure = retries.find_failure(conn, *key)
        if failure is None:
            if before is not None:
                self._reports.recovered(self._failing.pop(key))
            return
        self._failing[key] = failure
        if before is None or (before.code, before.dead) != (failure.code, failure.dead):
            self._reports.failing(failure)


def hear_once(hear: Callable[[str], None]) -> Callable[[str], None]:
    """`hear`, but of each text once."""
    heard: set[str] = set()

    def hear_new(text: str) -> None:
        if text not in heard:
            heard.add(text)
            hear(text)

    return hear_new


class LoadedFiles:
    """The files of the mappings, as they were when this was made.

    A process goes on with what it has loaded: half of the old and half of the new would fit nothing.
    """

    def __init__(self, settings: Settings, warned: Callable[[str], None]) -> None:
        self._mappings = settings.mappings_dirs()
        self._warned = hear_once(warned)
        self._states = self._read()
        self._looked = time.monotonic()

    def warn_of_changes(self) -> None:
        """Warn of each file that was changed, added or taken away; looks now and then, however often it is called."""
        if time.monotonic() - self._looked < FILES_INTERVAL:
            return
        now = self._read()
        for path in sorted({*now, *self._states}):
            if now.get(path) != self._states.get(path):
                self._warned(f"{path} was changed; what was loaded stays in use: restart to use it")
        self._looked = time.monotonic()

    def _read(self) -> dict[Path, tuple[int, int, int]]:
        found: dict[Path, tuple[int, int, int]] = {}
        for path in self._mapping_files():
            with suppress(OSError):
                state = path.stat()
                found[path] = (state.st_mtime_ns, state.st_size, state.st_ino)
        return found

    def _mapping_files(self) -> list[Path]:
        try:
            return list_mapping_files(*self._mappings)
        except OSError:
            return []

"""The configuration file under a loop: its external databases are taken up when it is edited, without a restart."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stackctl.backend.external_databases import DatabaseChanges

if TYPE_CHECKING:
    from pathlib import Path

    from stackctl.core.errors import StackctlError
    from stackctl.sync.pipeline import Pipeline

LOOK_INTERVAL = 1.0  # seconds between two looks; what has stayed the same from one to the next is not half written


@dataclass(frozen=True)
class Reload:
    """What another reading of the file came to: an `error`, and all stays as it was; or `changes` that are in use now.

    `restart_for`: keys that have another value, which nothing but a new process uses.
    """

    path: Path
    error: StackctlError | None = None
    changes: DatabaseChanges = field(default_factory=DatabaseChanges)
    restart_for: tuple[str, ...] = ()


class ConfigurationWatch:
    """Looks at the file for all loops of a process."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._lock = threading.Lock()
        self._path = pipeline.settings.config_path
        self._loaded = self._seen = self._read_state()
        self._looked = time.monotonic()

    def look(self, *, at_once: bool) -> Reload | None:
        """Take up the file if it was edited, or anyway when that is to be done `at_once`; None: nothing was done.

        Costs nothing more than once in LOOK_INTERVAL, however often it is called.
        """
        now = time.monotonic()
        with self._lock:
            if self._path is None or not (at_once or now - self._looked >= LOOK_INTERVAL):
                return None
            self._looked = now
            state = self._read_state()
            settled, self._seen = state == self._seen, state
            if not at_once and (state == self._loaded or not settled):
                return None
            self._loaded = state
            return self._pipeline.reload()

    def _read_state(self) -> tuple[int, int, int] | None:
        try:
            state = self._path.stat() if self._path is not None else None
        except OSError:
            return None
        return (state.st_mtime_ns, state.st_size, state.st_ino) if state is not None else None

"""What this process did in the last minutes, and how far the copies were behind then; for the board."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

STEP = 5  # seconds of one point
POINTS = 180  # of which 15 minutes are kept
RECENT = 3  # points, the current one included, that a rate is taken over

Done = Literal["stamped", "synced", "sent", "errors"]


class History:
    """Counts by time; called by several threads.

    `stamped` and `sent` are rows, `synced` databases that were brought up to date, `errors` attempts that failed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._done: dict[Done, dict[int, int]] = {"stamped": {}, "synced": {}, "sent": {}, "errors": {}}
        self._backlog: dict[int, int] = {}

    def add(self, kind: Done, count: int) -> None:
        if count:
            with self._lock:
                point = self._now()
                counts = self._done[kind]
                counts[point] = counts.get(point, 0) + count
                _forget(counts, point)

    def note_backlog(self, rows: int) -> None:
        with self._lock:
            self._backlog[self._now()] = rows
            _forget(self._backlog, self._now())

    def to_document(self) -> dict[str, Any]:
        """What is done a second now, and points of the past, oldest first; of the backlog, None where nobody looked."""
        with self._lock:
            now = self._now()
            seconds = min((RECENT - 1) * STEP + self._clock() % STEP, self._clock() - self._began)
            past = range(now - POINTS + 1, now + 1)
            recent = past[-RECENT:]
            return {
                "per_second": {
                    kind: round(sum(counts.get(point, 0) for point in recent) / max(seconds, 1), 1)
                    for kind, counts in self._done.items()
                },
                "step_s": STEP,
                "points": {kind: [counts.get(point, 0) for point in past] for kind, counts in self._done.items()}
                | {"backlog": [self._backlog.get(point) for point in past]},
            }

    def _now(self) -> int:
        return int(self._clock() // STEP)


def _forget(counts: dict[int, int], now: int) -> None:
    for point in [one for one in counts if one <= now - POINTS]:
        del counts[point]

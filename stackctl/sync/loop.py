"""When a loop ends: a signal, or its time is up. Clock and waiting live here, so that tests can do without them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta


class Stop:
    """Asked by every loop between two batches. `set` may be called from a signal handler or another thread."""

    def __init__(self, max_duration: timedelta | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deadline = clock() + max_duration.total_seconds() if max_duration is not None else None
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    @property
    def requested(self) -> bool:
        return self._event.is_set() or self._overdue

    @property
    def signalled(self) -> bool:
        return self._event.is_set()

    @property
    def reason(self) -> Literal["signal", "max-duration"]:
        return "signal" if self._event.is_set() else "max-duration"

    @property
    def _overdue(self) -> bool:
        return self._deadline is not None and self._clock() >= self._deadline

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than until the stop."""
        if self._deadline is not None:
            seconds = min(seconds, max(self._deadline - self._clock(), 0))
        self._event.wait(seconds)

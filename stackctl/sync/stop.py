"""When a loop ends, and what ends its pauses. Clock and waiting live here, so that tests can do without them.

Both classes are built on a bare lock, because they are used by signal handlers: a handler runs between any two
instructions of the main thread, and must not ask for a lock that this very thread holds, as those inside a
`threading.Event` or a `Condition` are while it waits.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta


class WakeUpSignal:
    """Ends one wait: the one under way, or the next. Sent twice before that counts once."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()

    def send(self) -> None:
        with suppress(RuntimeError):  # it was sent already
            self._gate.release()

    def wait(self, seconds: float) -> bool:
        """Whether it was sent before the time was up."""
        return self._gate.acquire(timeout=max(seconds, 0))


class StopRequest(Protocol):
    """Whether whoever works is to end after the batch in hand."""

    @property
    def requested(self) -> bool: ...

    def note_step(self) -> None:
        """A batch is done, or a rejected row recorded: the next turn goes on behind that."""
        ...


class Pause:
    """The stop of everything, or a request that somebody who has made one step lets others have a turn."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self._stepped = False
        self.wanted = False

    @property
    def requested(self) -> bool:
        return self._stop.requested or (self.wanted and self._stepped)

    def note_step(self) -> None:
        self._stepped = True


class Stop:
    """Asked by every loop between two batches. `set` may be called from a signal handler or another thread."""

    def __init__(self, max_duration: timedelta | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deadline = clock() + max_duration.total_seconds() if max_duration is not None else None
        self._set = False
        self._reload = WakeUpSignal()
        self._signals = (WakeUpSignal(),)

    def note_step(self) -> None:
        """It makes no difference to this one."""

    def set(self) -> None:
        self._set = True
        for signal in self._signals:
            signal.send()

    def request_reload(self) -> None:
        """Ask for another look at the configuration, at once; may be called as `set` is."""
        self._reload.send()
        for signal in self._signals:
            signal.send()

    def take_reload_request(self) -> bool:
        """Whether another look was asked for; says so once, to one of several threads."""
        return self._reload.wait(0)

    def new_wakeup_signal(self) -> WakeUpSignal:
        """A signal that the stop sends as well."""
        signal = WakeUpSignal()
        self._signals = (*self._signals, signal)
        if self._set:
            signal.send()
        return signal

    @property
    def requested(self) -> bool:
        return self._set or self._overdue

    @property
    def signalled(self) -> bool:
        return self._set

    @property
    def reason(self) -> Literal["signal", "max-duration"]:
        return "signal" if self._set else "max-duration"

    @property
    def _overdue(self) -> bool:
        return self._deadline is not None and self._clock() >= self._deadline

    def time_left(self, seconds: float) -> float:
        """`seconds`, or less when the time is up before."""
        return seconds if self._deadline is None else min(seconds, max(self._deadline - self._clock(), 0))

    def wait(self, seconds: float, signal: WakeUpSignal | None = None) -> bool:
        """Sleep, but no longer than until the stop or the `signal` (one of this stop's). Whether that was sent."""
        own = self._signals[0] if signal is None else signal
        sent = own.wait(self.time_left(seconds))
        if self._set:
            own.send()  # it stays sent, for every other thread and every later wait
        return sent and not self._set

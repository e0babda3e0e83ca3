"""Signals that wait for a moment."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def hold_interrupts() -> Iterator[None]:
    """Inside, Ctrl-C and its like wait for the end: a process that is being started must be known to be stopped.

    Processes that are started inside do not inherit that.
    """
    before: dict[int, Callable[[int, Any], Any]] = {}
    arrived: list[int] = []
    if threading.current_thread() is threading.main_thread():  # no other thread is interrupted
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, lambda number, frame: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if arrived:
            before[arrived[0]](arrived[0], None)

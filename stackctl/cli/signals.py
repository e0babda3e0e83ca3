"""What ends a command from outside: Ctrl-C, SIGTERM, and the SIGHUP of a terminal that was closed.

One that was ignored when the command started (`nohup`, a script's background job) stays ignored.
"""

from __future__ import annotations

import math
import os
import signal
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CLEAN_UP_SECONDS = 15.0  # a command of `migrate check` is given five to end, then servers are stopped


def interrupt_on_signals() -> None:
    """Have them raise KeyboardInterrupt; but those that follow soon do not break off what is being cleaned up."""
    last = -math.inf

    def interrupt(number: int, frame: object) -> None:
        nonlocal last
        # Not for ever: Python drops what is raised in some places, and then it has to be said again.
        if time.monotonic() - last > _CLEAN_UP_SECONDS:
            last = time.monotonic()
            raise KeyboardInterrupt

    handle_signals(interrupt)


def handle_signals(handler: Callable[[int, Any], None]) -> dict[signal.Signals, Any]:
    """Have `handler` called for each; returns what was called before, for `restore_handlers`."""
    return {
        number: signal.signal(number, handler) for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN
    }


def has_terminal() -> bool:
    """Whether this process belongs to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def restore_handlers(before: dict[signal.Signals, Any]) -> None:
    """Undo `handle_signals`."""
    for number, handler in before.items():
        signal.signal(number, handler)


def ignore_further_signals() -> None:
    """Let nothing but SIGKILL end what follows. The programs that it starts do not inherit that."""
    handle_signals(lambda number, frame: None)

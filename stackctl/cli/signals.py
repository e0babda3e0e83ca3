"""What ends a command from outside: Ctrl-C, SIGTERM, and the SIGHUP of a terminal that was closed.

One that was ignored when the command started (`nohup`, a script's background job) stays ignored.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_on_signals() -> None:
    """Have the first of them raise KeyboardInterrupt. The ones after it do not break off what is being cleaned up."""
    handle_signals(_interrupt)


def handle_signals(handler: Callable[[int, Any], None]) -> dict[signal.Signals, Any]:
    """Have `handler` called for each; returns what was called before, for `restore_handlers`."""
    return {
        number: signal.signal(number, handler) for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN
    }


def restore_handlers(before: dict[signal.Signals, Any]) -> None:
    """Undo `handle_signals`."""
    for number, handler in before.items():
        signal.signal(number, handler)


def ignore_further_signals() -> None:
    """Let nothing but SIGKILL end what follows. The programs that it starts do not inherit that."""
    handle_signals(lambda number, frame: None)


def _interrupt(number: int, frame: object) -> None:
    ignore_further_signals()
    raise KeyboardInterrupt

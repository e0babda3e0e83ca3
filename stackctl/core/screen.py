"""A terminal's whole screen: drawn anew at each look, with keys that are read at once, and given back as it was."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.text import Text

from stackctl.core.interrupts import hold_interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console as RichConsole

Line = tuple[str, str | None]  # a text and its style


class Screen:
    """The alternate screen, for the length of a `with`; what was there before comes back with its end.

    `clean` makes a text harmless and such that the terminal's encoding has it. Ctrl-C and SIGTERM raise as ever, Ctrl-Z
    gives the terminal back until the process goes on.
    """

    def __init__(self, terminal: RichConsole, clean: Callable[[str], str]) -> None:
        self._terminal, self._clean = terminal, clean
        self._live: Live | None = None
        self._mode: list[Any] | None = None
        self._keys = _find_keyboard()
        self._suspended = False
        self._handlers: dict[int, Any] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        return self._terminal.size.width, self._terminal.size.height

    @property
    def has_blocks(self) -> bool:
        """Whether it can show more than ASCII."""
        return self._clean("█") == "█"

    def __enter__(self) -> Screen:
        self._woken, self._waker = os.pipe()
        for end in (self._woken, self._waker):
            os.set_blocking(end, False)
        self._fd_before = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number, handler in (
            (signal.SIGWINCH, _do_nothing),  # which ends a wait all the same
            (signal.SIGCONT, _do_nothing),
            (signal.SIGTSTP, self._remember_to_suspend),
            (signal.SIGQUIT, _interrupt),
        ):
            self._handlers[number] = signal.signal(number, handler)
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        with hold_interrupts():
            self._end()
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._fd_before)
            os.close(self._woken)
            os.close(self._waker)

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines and nothing else; what is beyond the window is left out."""
        whole = Text(no_wrap=True, overflow="crop")
        for at, (text, style) in enumerate(lines):
            whole.append(("\n" if at else "") + self._clean(text), style)
        if self._live is not None:
            self._live.update(whole, refresh=True)

    def wake(self) -> None:
        """End a `wait` in another thread."""
        with suppress(OSError):  # it is full, which will do, or the screen is gone
            os.write(self._waker, b"\0")

    def wait(self, seconds: float) -> str:
        """The keys that were pressed; none when the time is over, the window has changed, or `wake` was called."""
        keyboard = [] if self._keys is None else [self._keys]
        ready, _, _ = select.select([self._woken, *keyboard], [], [], seconds)
        if self._woken in ready:
            with suppress(BlockingIOError):
                os.read(self._woken, 4096)
        pressed = b""
        if self._keys in ready:
            with suppress(OSError):  # the terminal is gone
                pressed = os.read(self._keys, 4096)
            if not pressed:
                self._keys = None
        if self._suspended:
            self._suspend()
        return pressed.decode(errors="replace")

    def _begin(self) -> None:
        with hold_interrupts():
            if self._keys is not None:
                self._mode = termios.tcgetattr(self._keys)
                tty.setcbreak(self._keys)
            self._live = Live(console=self._terminal, screen=True, auto_refresh=False, redirect_stdout=False,
                              redirect_stderr=False, vertical_overflow="crop")  # fmt: skip
            self._live.start()

    def _end(self) -> None:
        live, self._live = self._live, None
        with suppress(OSError):  # of a terminal that was closed
            if live is not None:
                live.stop()
        with suppress(OSError, termios.error):
            if self._keys is not None and self._mode is not None:
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._mode)

    def _remember_to_suspend(self, number: int, frame: object) -> None:
        self._suspended = True

    def _suspend(self) -> None:
        self._suspended = False
        self._end()
        ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # here it stops, and goes on
        signal.signal(signal.SIGTSTP, ours)
        self._begin()


def _find_keyboard() -> int | None:
    """The terminal that keys are read from: stdin, where it is one and this process is in front."""
    try:
        fd = sys.stdin.fileno()
        return fd if os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp() else None
    except (AttributeError, OSError, ValueError):
        return None


def _do_nothing(number: int, frame: object) -> None:
    pass


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt

"""How far long work is, on stderr: a bar on a terminal, a plain line every few seconds off one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stackctl.core.durations import format_duration
from stackctl.core.sentences import to_sentence

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console as RichConsole

PLAIN_PROGRESS_INTERVAL = 3.0  # seconds between progress lines off a terminal


class Progress:
    """Progress that nobody sees."""

    def advance(self, amount: int, note: str = "") -> None:
        """`amount` more is done (0: still at work); `note` says what is in hand."""


class BarProgress(Progress):
    def __init__(self, console: RichConsole, label: str, total: int | None) -> None:
        from rich import progress

        self._bar = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._label = label
        self._started = time.monotonic()
        self._done = 0
        self._task = self._bar.add_task(to_sentence(label), total=total, rate="")

    def __enter__(self) -> BarProgress:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def advance(self, amount: int, note: str = "") -> None:
        if amount:  # a thread may say that work goes on, while another counts
            self._done += amount
        elapsed = max(time.monotonic() - self._started, 0.001)
        rate = f"{self._done / elapsed:,.0f}/s" if self._done else format_duration(elapsed)
        description = to_sentence(f"{self._label} {note}".rstrip())
        self._bar.update(self._task, advance=amount, description=description, rate=rate)


class LineProgress(Progress):
    def __init__(self, say: Callable[[str], None], label: str, total: int | None, unit: str) -> None:
        self._say, self._label, self._total, self._unit = say, label, total, unit
        self._started = self._spoke = time.monotonic()
        self._done = 0

    def advance(self, amount: int, note: str = "") -> None:
        if amount:  # a thread may say that work goes on, while another counts
            self._done += amount
        now = time.monotonic()
        if now - self._spoke < PLAIN_PROGRESS_INTERVAL:
            return
        self._spoke = now
        text = f"{self._label} {note}".rstrip()
        if not self._done:  # a sign of life
            self._say(f"{text}: {format_duration(now - self._started)}")
            return
        rate = self._done / (now - self._started)
        text += f": {self._done:,} {self._unit}, {rate:,.0f}/s"
        if self._total:
            left = max(self._total - self._done, 0) / rate
            text += f", {100 * self._done / self._total:.0f} %, {format_duration(left)} left"
        self._say(text)

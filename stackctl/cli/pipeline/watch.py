"""`status --watch`: the board on a terminal, elsewhere one look after the other. Neither ends with a connection."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stackctl.cli.pipeline.board import History, compose_board
from stackctl.core.errors import StackctlError
from stackctl.core.streams import has_reader
from stackctl.sync.status import read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from uuid import UUID

    from stackctl.cli.command import Run
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.status import Status

_TICK = 1.0  # seconds after which ages are shown anew


def watch(
    run: Run, pipeline: Pipeline, tenancy: UUID | None, first: Status, interval: float, show: Callable[[Status], None]
) -> None:
    """Until Ctrl-C, SIGTERM, or q on the board. `first` was just read; `show` prints a look where there is no board."""
    with suppress(KeyboardInterrupt):
        if run.console.has_screen and not run.json_output:
            _show_board(run, pipeline, tenancy, first, interval)
        else:
            _show_looks(run, pipeline, tenancy, first, interval, show)


def _show_looks(
    run: Run, pipeline: Pipeline, tenancy: UUID | None, first: Status, interval: float, show: Callable[[Status], None]
) -> None:
    show(first)
    with closing(_read_on(run, pipeline, tenancy)) as looks:
        while has_reader():
            time.sleep(interval)
            match next(looks):
                case StackctlError() as error:
                    run.console.warn(f"{error.message}; trying on")
                case found:
                    show(found)


def _read_on(run: Run, pipeline: Pipeline, tenancy: UUID | None) -> Generator[Status | StackctlError]:
    """Looks without end, each when it is asked for; a connection that is lost is an error, and then made anew."""
    while True:
        try:
            with run.database() as conn:
                while True:
                    yield read_status(pipeline, conn, tenancy)
        except StackctlError as error:
            yield error


def _show_board(run: Run, pipeline: Pipeline, tenancy: UUID | None, first: Status, interval: float) -> None:
    history, found, trouble = History(), first, None
    history.add(time.monotonic(), found)
    news: queue.SimpleQueue[tuple[float, Status | BaseException]] = queue.SimpleQueue()
    with run.console.screen() as screen:

        def read() -> None:
            # In a thread, so that no server that hangs keeps the keys from being read.
            try:
                for look in _read_on(run, pipeline, tenancy):
                    news.put((time.monotonic(), look))
                    screen.wake()
                    time.sleep(interval)
            except BaseException as error:  # noqa: BLE001 - a bug, which the main thread raises
                news.put((time.monotonic(), error))
                screen.wake()

        threading.Thread(target=read, name="board", daemon=True).start()
        while has_reader():
            width, height = screen.size
            now = datetime.now(UTC)
            screen.draw(compose_board(found, history, width=width, height=height, now=now, interval=interval,
                                      blocks=screen.has_blocks, trouble=trouble))  # fmt: skip
            if "q" in screen.wait(min(interval, _TICK)).lower():
                return
            while not news.empty():
                match news.get():
                    case _, StackctlError() as error:
                        trouble = error.message
                    case _, BaseException() as error:
                        raise error
                    case at, look:
                        found, trouble = look, None
                        history.add(at, found)

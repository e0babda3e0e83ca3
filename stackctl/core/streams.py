"""The three streams of the process: there even where they were closed, and no error when their reader leaves."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_listeners: list[Callable[[], object]] = []
_reader_left = False


class RawOutput(io.FileIO):
    """Bytes for a reader that may leave (`| head`): then they are dropped, and a command ends with its result.

    What stderr does not take (a full disk) is dropped, too: a remark that nobody sees changes no result.
    """

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            if self.fileno() == 1:
                _remember_that_reader_left()
            return memoryview(data).nbytes
        except OSError:
            if self.fileno() != 2:
                raise
            return memoryview(data).nbytes


def adopt_streams() -> None:
    """Put ours in the place of sys.stdout and sys.stderr, once, before anything is written."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # `>&-`. Whatever was opened next, a database's file or socket, would take this number, and the output.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _adopt(sys.stdout, 1)
    sys.stderr = _adopt(sys.stderr, 2)


def _adopt(stream: Any, fd: int) -> Any:
    stream = stream or open(fd, "w", closefd=False)  # noqa: SIM115
    raw = RawOutput(fd, "w", closefd=False)
    return io.TextIOWrapper(
        raw if stream.write_through else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def has_reader() -> bool:
    """False once stdout's has left."""
    return not _reader_left


def on_reader_left(call: Callable[[], object]) -> None:
    """`call` when stdout's leaves: for what goes on for ever, and whose output is its purpose."""
    _listeners.append(call)


def _remember_that_reader_left() -> None:
    global _reader_left
    _reader_left = True
    for call in _listeners:
        call()

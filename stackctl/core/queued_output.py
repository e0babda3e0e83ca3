"""Output that nobody may wait for, such as the log of a server."""

from __future__ import annotations

import io
import queue
import select
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stackctl.core.streams import RawOutput

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_LINES = 1000  # that wait to be written
LAST_LINES = 2.0  # seconds that they have for it at the end


class QueuedOutput(io.TextIOBase):
    """Stands for a stream; a thread of its own writes there, however long its reader takes.

    What can't be written, because the disk is full or too many lines wait already, is dropped: `on_drop` hears of each,
    from any thread.
    """

    def __init__(self, stream: Any, on_drop: Callable[[], object]) -> None:
        self._stream = stream
        self._on_drop = on_drop
        self._raw = RawOutput(stream.fileno(), "w", closefd=False)
        self._lines: queue.Queue[bytes] = queue.Queue(MOST_LINES)
        self._until: float | None = None
        self._torn = False  # a line was begun and could not be ended
        self._thread = threading.Thread(target=self._work, name="stackctl-output", daemon=True)
        self._thread.start()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, text: str) -> int:
        """One or several whole lines."""
        try:
            self._lines.put_nowait(text.encode(self.encoding, "backslashreplace"))
        except queue.Full:
            self._on_drop()
        return len(text)

    def end(self) -> None:
        """Write what waits, as far as that takes no longer than `LAST_LINES`."""
        self._until = time.monotonic() + LAST_LINES
        with suppress(queue.Full):
            self._lines.put_nowait(b"")
        self._thread.join(2 * LAST_LINES)  # where others write into the same pipe, even a short write may hang

    def _work(self) -> None:
        while self._until is None or not (self._lines.empty() or time.monotonic() > self._until):
            if line := self._lines.get():
                try:
                    self._write_out(b"\n" + line if self._torn else line)
                except OSError:
                    self._on_drop()

    def _write_out(self, line: bytes) -> None:
        left = memoryview(line)
        writable = select.poll()
        writable.register(self._raw, select.POLLOUT)
        while left:
            while not writable.poll(100):  # ms
                if self._until is not None and time.monotonic() > self._until:
                    raise TimeoutError
            # So much a pipe that has room at all takes without waiting.
            left = left[self._raw.write(left[: select.PIPE_BUF]) :]
            self._torn = bool(left)

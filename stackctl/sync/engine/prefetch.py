"""The next batch read while the target still merges the one before."""

from __future__ import annotations

import queue as queues
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.sync.engine.row_stream import RowStream
    from stackctl.sync.targets.protocol import StreamFormat


DISCARD_WAIT = 0.5  # seconds for a page that nobody wants to come to its end by itself


class Prefetch:
    """A stream that a thread of its own reads before it is asked for, in one format.

    Its connection must not be used otherwise until the end was reached or `discard` has returned.
    """

    def __init__(self, stream: RowStream, stream_format: StreamFormat) -> None:
        self._stream = stream
        self._format = stream_format
        self._pieces: queues.Queue[Any] = queues.Queue(stream_format.prefetched_pieces)
        self._discarded = threading.Event()
        self._thread = threading.Thread(target=self._read, name="stackctl-prefetch", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for piece in self._format.read(self._stream):
                self._pieces.put(piece)
                if self._discarded.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 - raised where the pieces are taken
            self._pieces.put(error)
        else:
            self._pieces.put(None)

    def read_binary(self) -> Iterator[bytes]:
        return self._take()

    def read_csv(self) -> Iterator[bytes]:
        return self._take()

    def read_chunks(self, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """In chunks of the size that was read, whatever `size` says."""
        return self._take()

    def _take(self) -> Iterator[Any]:
        while (piece := self._pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def discard(self) -> None:
        """Give up what was not taken; returns once the connection is free.

        A statement that takes its time, as one that waits for a lock does, is broken off.
        """
        self._discarded.set()
        cancel_at = time.monotonic() + DISCARD_WAIT
        while self._thread.is_alive():
            with suppress(queues.Empty):
                self._pieces.get(timeout=0.01)
            if time.monotonic() >= cancel_at:
                self._stream.cancel()
                cancel_at = time.monotonic() + DISCARD_WAIT
        self._thread.join()

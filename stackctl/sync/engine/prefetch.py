"""The next batch read while the target still merges the one before."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.sync.engine.row_stream import RowStream
    from stackctl.sync.targets.protocol import StreamFormat

READ_AHEAD = 16 * 1024 * 1024  # bytes that were read and not yet written, and one piece
DISCARD_WAIT = 0.5  # seconds for a page that nobody wants to come to its end by itself


class Prefetch:
    """A stream that a thread of its own reads before it is asked for, in one format.

    Its connection must not be used otherwise until the end was reached or `discard` has returned.
    """

    def __init__(self, stream: RowStream, stream_format: StreamFormat) -> None:
        self.amount = stream.amount
        self._stream = stream
        self._format = stream_format
        self._changed = threading.Condition()
        self._pieces: deque[tuple[Any, int]] = deque()
        self._taken = 0  # bytes of pieces that somebody has done with
        self._ended = self._discarded = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="stackctl-prefetch", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for piece in self._format.read(self._stream):
                self._pieces.append((piece, self.amount.bytes))
                del piece
                with self._changed:
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._discarded or self.amount.bytes - self._taken < READ_AHEAD)
                if self._discarded:
                    break
        except BaseException as error:  # noqa: BLE001 - raised where the pieces are taken
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def read_binary(self) -> Iterator[bytes]:
        return self._take()

    def read_csv(self) -> Iterator[bytes]:
        return self._take()

    def read_chunks(self, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """In chunks of the size that was read, whatever `size` says."""
        return self._take()

    def _take(self) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pieces or self._ended)
            if not self._pieces:
                break
            piece, read = self._pieces.popleft()
            held = [piece]
            del piece
            yield held.pop()
            with self._changed:
                self._taken = read
                self._changed.notify_all()
        if self._failure is not None:
            raise self._failure

    def discard(self) -> None:
        """Give up what was not taken; returns once the connection is free.

        A statement that takes its time, as one that waits for a lock does, is broken off.
        """
        with self._changed:
            self._discarded = True
            self._changed.notify_all()
        self._thread.join(DISCARD_WAIT)
        while self._thread.is_alive():
            self._stream.cancel()
            self._thread.join(DISCARD_WAIT)
        self._pieces.clear()

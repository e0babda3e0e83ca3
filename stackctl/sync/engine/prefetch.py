"""The next batch read while the target still merges the one before."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import closing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from stackctl.sync.engine.load_window import LoadPage
    from stackctl.sync.engine.row_stream import Amount, RowStream
    from stackctl.sync.targets.protocol import StreamFormat

READ_AHEAD = 16 * 1024 * 1024  # bytes that were read and not yet written, and one piece
DISCARD_WAIT = 0.5  # seconds for a page that nobody wants to come to its end by itself


class _Ahead:
    """A thread that reads pieces before they are asked for, so many bytes of them.

    The connection that it reads must not be used otherwise until its end was taken or `discard` has returned.
    """

    def __init__(self, pieces: Iterator[tuple[Any, int]]) -> None:
        self._changed = threading.Condition()
        self._pieces: deque[tuple[Any, int]] = deque()
        self._waiting = 0  # bytes of pieces that nobody has done with
        self._ended = self._discarded = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._read, args=(pieces,), name="stackctl-prefetch", daemon=True)
        self._thread.start()

    def _read(self, pieces: Iterator[tuple[Any, int]]) -> None:
        try:
            for piece, size in pieces:
                with self._changed:
                    self._pieces.append((piece, size))
                    del piece
                    self._waiting += size
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._discarded or self._waiting < READ_AHEAD)
                if self._discarded:
                    break
        except BaseException as error:  # noqa: BLE001 - raised where the pieces are taken
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def take(self) -> Iterator[Any]:
        """The pieces in turn; raises what went wrong after them."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pieces or self._ended)
            if not self._pieces:
                break
            piece, size = self._pieces.popleft()
            held = [piece]
            del piece
            yield held.pop()
            with self._changed:
                self._waiting -= size
                self._changed.notify_all()
        if self._failure is not None:
            raise self._failure

    def discard(self, cancel: Callable[[], None]) -> None:
        """Give up what was not taken; returns once the connection is free.

        A statement that takes its time, as one that waits for a lock does, is broken off.
        """
        with self._changed:
            self._discarded = True
            self._changed.notify_all()
        self._thread.join(DISCARD_WAIT)
        while self._thread.is_alive():
            cancel()
            self._thread.join(DISCARD_WAIT)
        self._pieces.clear()


def _with_sizes(stream: RowStream, stream_format: StreamFormat) -> Iterator[tuple[Any, int]]:
    before = 0
    for piece in stream_format.read(stream):
        held, size, before = [piece], stream.amount.bytes - before, stream.amount.bytes
        del piece
        yield held.pop(), size


class PiecesAhead:
    """Pieces in the one format that they were read in."""

    def __init__(self, pieces: Iterator[Any], amount: Amount) -> None:
        self.amount = amount
        self._taken = pieces

    def read_binary(self) -> Iterator[bytes]:
        return self._taken

    def read_csv(self) -> Iterator[bytes]:
        return self._taken

    def read_chunks(self, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """In chunks of the size that was read, whatever `size` says."""
        return self._taken


class Prefetch(PiecesAhead):
    """A stream that a thread of its own reads before it is asked for."""

    def __init__(self, stream: RowStream, stream_format: StreamFormat) -> None:
        self._stream = stream
        self._ahead = _Ahead(_with_sizes(stream, stream_format))
        super().__init__(self._ahead.take(), stream.amount)

    def discard(self) -> None:
        """Give up what was not taken; returns once the connection is free."""
        self._ahead.discard(self._stream.cancel)


class LoadAhead:
    """The pages of a load, read by a thread while others are written; the first one is above `cursor`."""

    def __init__(self, cursor: int, pages: Generator[LoadPage], stream_format: StreamFormat) -> None:
        self.cursor = cursor  # which the next page begins above
        self._pages = pages
        self._format = stream_format
        self._page: LoadPage | None = None
        self._ahead = _Ahead(self._read())
        self._taken = self._ahead.take()

    def _read(self) -> Iterator[tuple[Any, int]]:
        with closing(self._pages):
            for page in self._pages:
                self._page = page
                yield page.amount, 0
                yield from _with_sizes(page, self._format)
                yield None, 0
                yield page.up_to, 0

    def take_page(self) -> PiecesAhead | None:
        """The next page, to be read to its end."""
        amount = next(self._taken, None)
        return None if amount is None else PiecesAhead(iter(self._taken.__next__, None), amount)

    def end_page(self) -> int:
        """The id up to which the page reached that was taken, and read."""
        self.cursor = next(self._taken)
        return self.cursor

    def discard(self) -> None:
        """Give up what was not taken; returns once the connection is free."""
        self._ahead.discard(lambda: self._page.cancel() if self._page is not None else None)

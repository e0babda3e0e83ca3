"""GET /board/events: how the pipeline is, read once a tick for all who look, and not at all while nobody does."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stackctl import __version__
from stackctl.core.documents import to_masked_json
from stackctl.core.errors import StackctlError
from stackctl.server.answers import busy
from stackctl.server.board.document import Summary, board_document, read_steering

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stackctl.server.site import Site

TICK = 2.0  # seconds
SHARE = 5  # a status that takes a while to read is read again after so many times that long
PATIENCE = 1.0  # seconds that a tick waits for it
HEARTBEAT = 15.0  # seconds after which a silent stream says that it is there
MOST_VIEWERS = 200


class Live:
    """The viewers' one source. It runs in the server's event loop, `find_summary` and `summarize` in any thread."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._viewers = 0
        self._reading: asyncio.Task[None] | None = None
        self._latest: bytes | None = None
        self._number = 0
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stopping = False
        self._lock = threading.Lock()
        self._summary: Summary | None = None
        self._reader: threading.Thread | None = None
        self._problem: Exception | None = None
        self._lasted = 0.0

    def stop(self) -> None:
        """End all streams."""
        self._stopping = True
        self._hurry.set()
        self._announce()

    def hurry(self) -> None:
        """Something was changed from here: look at once."""
        self._hurry.set()

    def check_room(self) -> None:
        if self._viewers >= MOST_VIEWERS or self._stopping:
            raise busy("busy", "the server has no room for another viewer, or is stopping", seconds=5)

    async def watch(self, end: float | None) -> AsyncIterator[bytes]:
        """Server-sent events until the viewer leaves, the server stops, or at `end` (seconds since 1970)."""
        self._viewers += 1
        try:
            if self._reading is None or self._reading.done():
                self._latest = None
                self._reading = asyncio.create_task(self._read_on())
            yield b"retry: 2000\n\n"
            seen = -1
            while not self._stopping:
                if end is not None and time.time() >= end:
                    yield b"event: expired\ndata: {}\n\n"
                    return
                if self._latest is not None and seen != self._number:
                    seen = self._number
                    yield self._latest
                    continue
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        await self._news.wait()
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._viewers -= 1

    def find_summary(self) -> Summary:
        """The one that viewers are shown; a new one while there are none. Raises as `summarize` does."""
        shown = self._summary if self._viewers else None
        return shown or self.summarize(self.age)

    def summarize(self, max_age: float) -> Summary:
        """The status summed up, no older than that. Raises what the operated database raises."""
        found = self._site.overview.read(max_age)
        with self._lock:
            if self._summary is None or self._summary.found is not found:
                summary = Summary(found)
                self._site.history.note_backlog(summary.totals["backlog"])
                self._summary = summary
            return self._summary

    @property
    def age(self) -> float:
        """Seconds that a status may be old, here."""
        return max(TICK / 2, self._lasted * SHARE)

    async def _read_on(self) -> None:
        while self._viewers and not self._stopping:
            self._hurry.clear()
            try:
                event, document = "state", await asyncio.to_thread(self._read)
            except StackctlError as error:
                event, document = "trouble", {"code": error.code, "message": error.message}
            except Exception as error:  # noqa: BLE001 - the viewers are told, and the next tick may go better
                self._site.say_bug("/board/events", error)
                event, document = "trouble", {"code": "bug", "message": "this is a bug in stackctl; see its log"}
            self._latest = f"event: {event}\ndata: {to_masked_json(document)}\n\n".encode()
            self._announce()
            try:
                async with asyncio.timeout(TICK):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    def _announce(self) -> None:
        self._number += 1
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _read(self) -> dict[str, Any]:
        with self._site.pipeline.open_session() as conn:
            steering = read_steering(conn)
        if self._summary is None and (last := self._site.overview.last) is not None:
            self._summary = Summary(last)  # somebody else's reading, for a start
        # With thousands of databases the status takes longer than a tick; what is quickly read does not wait for it.
        if self._reader is None or not self._reader.is_alive():
            self._reader = threading.Thread(target=self._read_status, name="stackctl-board", daemon=True)
            self._reader.start()
        self._reader.join(PATIENCE)
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem
        return {
            "version": __version__,
            "now": datetime.now(UTC),
            **self._site.history.to_document(),
            **board_document(steering, self._summary),
        }

    def _read_status(self) -> None:
        overview = self._site.overview
        if overview.age <= self.age and self._summary is not None and self._summary.found is overview.last:
            return
        started = time.monotonic()
        try:
            self.summarize(self.age)
        except Exception as error:  # noqa: BLE001 - raised by the next tick
            self._problem = error
        else:
            self._lasted = time.monotonic() - started

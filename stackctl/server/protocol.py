"""HTTP/1.1 as uvicorn speaks it, with time limits for clients that are slow on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

LONGEST_HEAD = 16 * 1024  # bytes of a request's line and headers
HEAD_TIMEOUT = 10.0  # seconds in which they must have come
READ_TIMEOUT = 30.0  # seconds in which a client must have read what makes us wait
SPARE = 50  # connections above the limit that are told so; further ones are cut off
LINGER = 5.0  # seconds that a client goes on sending, unheard, what it was answered without
KEEP_ALIVE = 30  # seconds that a connection may lie idle between two requests


class PatientProtocol(H11Protocol):
    """Drops a connection whose request does not come, or whose client does not read the answer."""

    _head_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None
    _lingering: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency + SPARE:
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingering is not None:
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._await_head()
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def on_response_complete(self) -> None:
        """Hang up on who still sends a body; hearing it out for a while, as a reset could outrun the answer."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self.transport.write_eof()
            self._lingering = self.loop.call_later(LINGER, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_timer = self.loop.call_later(READ_TIMEOUT, self.transport.abort)

    def resume_writing(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None
        super().resume_writing()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self.transport.abort)

    def _cancel_timers(self) -> None:
        for timer in (self._head_timer, self._read_timer, self._lingering):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._read_timer = None

"""Tenancies that somebody waits for: an HTTP request asks for a sync, the poller's thread does it.

What is asked for becomes records of the tenancy's databases (queue/deliveries.py) first, so that nothing is lost
however the request ends.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from uuid import UUID

    from stackctl.sync.queue.deliveries import Key

Outcome = Literal["ok", "failing", "misconfigured", "paused"]

CAPACITY = 64  # requests in hand at a time


@dataclass
class SyncRequest:
    """One tenancy that is to be brought up to date.

    `outcomes` are of the databases that are through, `waiting` of the others: how many attempts that are to end first.
    `started`: an attempt for it has begun. `queued`: the poller is switched off, its databases wait for that.
    `broken_off`: whoever works on it has ended.
    """

    tenancy: UUID
    done: Future[None] = field(default_factory=Future[None])
    outcomes: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    waiting: dict[str, int] = field(default_factory=dict[str, int])
    accepted: bool = False
    started: bool = False
    queued: bool = False
    broken_off: bool = False

    def end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class SyncRequests:
    """The requests in hand, a bounded number. `submit` and `drop` are called by any thread, the rest by the poller's.

    `wake` is called when there is a new one.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.wake: Callable[[], None] = lambda: None
        self._capacity = capacity
        self._lock = threading.Lock()
        self._new: list[SyncRequest] = []
        self._requests: list[SyncRequest] = []

    def submit(self, tenancy: UUID) -> SyncRequest | None:
        """Have this tenancy synced; None when too many wait already."""
        request = SyncRequest(tenancy)
        with self._lock:
            if len(self._requests) >= self._capacity:
                return None
            self._requests.append(request)
            self._new.append(request)
        self.wake()
        return request

    def drop(self, request: SyncRequest) -> None:
        """Nobody waits for it any more; what it asked for goes on."""
        with self._lock:
            self._requests.remove(request)
            if request in self._new:
                self._new.remove(request)

    @property
    def has_new(self) -> bool:
        return bool(self._new)

    def list_new(self) -> list[SyncRequest]:
        """Those that are not `accept`ed yet."""
        with self._lock:
            return list(self._new)

    def accept(self, request: SyncRequest, databases: Iterable[str], in_hand: Collection[Key]) -> None:
        """Its databases are recorded. What is `in_hand` began before it, and another attempt follows."""
        request.waiting = {one: 2 if (request.tenancy, one) in in_hand else 1 for one in databases}
        with self._lock:
            if request in self._new:
                self._new.remove(request)
        request.accepted = True
        if not request.waiting:
            request.end()

    def start(self, key: Key) -> None:
        """An attempt on this database begins."""
        for request in self._find(key):
            request.started = True

    def settle(self, key: Key, outcome: Outcome) -> None:
        """An attempt on this database has ended, or there is none to be made now."""
        for request in self._find(key):
            request.waiting[key[1]] -= 1
            if request.waiting[key[1]] <= 0 or outcome in ("failing", "misconfigured"):
                del request.waiting[key[1]]
                request.outcomes[key[1]] = outcome
            if not request.waiting:
                request.end()

    def postpone_all(self) -> None:
        """The poller is switched off: what is recorded waits until it is on again."""
        with self._lock:
            requests = [one for one in self._requests if one.accepted]
        for request in requests:
            request.queued = True
            request.end()

    def break_off_all(self) -> None:
        """Nobody works on them any more; what is recorded is done by others, or later."""
        with self._lock:
            requests = list(self._requests)
        for request in requests:
            request.broken_off = True
            request.end()

    def _find(self, key: Key) -> list[SyncRequest]:
        with self._lock:
            return [one for one in self._requests if one.tenancy == key[0] and key[1] in one.waiting]

"""Stage 3 with `sync.dispatch: http` or `qstash`: claimed entries are handed on, a bounded number at a time.

It stands where the poller stands (engine/poller.py), and is ticked like it. An entry stays in the queue, claimed, until
the endpoint has answered with success, or the delivery service has taken it; only then it is deleted. So nothing that
was not done is reported done, and a kill at any point means that it is handed on again.
"""

from __future__ import annotations

import random
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg

from stackctl.sync.changes.sequencer import prune_stamps
from stackctl.sync.changes.wakeup import WorkProbe
from stackctl.sync.dispatch.connections import Call
from stackctl.sync.dispatch.endpoint import SHORT_WAIT
from stackctl.sync.engine.database_sync import DatabaseResult
from stackctl.sync.queue import claims, entries, retries
from stackctl.sync.queue.claims import UNDELIVERED

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from datetime import timedelta
    from uuid import UUID

    from stackctl.core.errors import StackctlError
    from stackctl.postgres.connect import Connection
    from stackctl.sync.changes.wakeup import PendingWork
    from stackctl.sync.dispatch.endpoint import Endpoint, Sent, Verdict
    from stackctl.sync.dispatch.qstash import DeliveryService
    from stackctl.sync.engine.poller import PollResult
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.queue.claims import Claim

THREADS = 20
RECOVERY_INTERVAL = 5.0  # seconds between two looks for expired claims, and for the sweep
PRUNE_INTERVAL = 600.0  # seconds between two prunings of what only tells of the past
STOP_GRACE = 10.0  # seconds that a stop waits for answers
PATIENCE = 12  # times in a row that an endpoint may be busy before that counts as a failure
FIRST_REST = 1.0  # seconds, doubled each time that the receiver takes nothing and does not say for how long
LONGEST_REST = 60.0  # seconds


@dataclass
class _Post:
    """A claim under way, or waiting until `ready_at` for its turn (no `future`)."""

    claim: Claim
    ready_at: float = 0.0
    future: Future[Sent] | None = None
    call: Call | None = None
    refusals: int = 0


class Dispatcher:
    """Hands what is due on to `receiver`, tick by tick; keeps what is in hand when its connection is lost.

    `loops`: it sweeps as well, and rests when the receiver takes nothing, which `on_trouble` hears of; else that is
    raised. `on_done` is called by the thread of a post that has ended.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        receiver: Endpoint | DeliveryService,
        *,
        claim_limit: int,
        lease: timedelta = entries.LEASE,
        loops: bool = False,
        on_done: Callable[[], None] = lambda: None,
        on_result: Callable[[Connection, DatabaseResult], None] = lambda conn, result: None,
        on_trouble: Callable[[StackctlError], None] = lambda error: None,
    ) -> None:
        self._pipeline = pipeline
        self._receiver = receiver
        self._in_flight = min(claim_limit, receiver.in_flight)
        self._lease = lease
        self._loops = loops
        self._on_done = on_done
        self._on_result = on_result
        self._on_trouble = on_trouble
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="stackctl-dispatch")
        self._posts: dict[UUID, _Post] = {}
        self._renewed = 0.0
        self._recovered = self._pruned = float("-inf")
        self._stopped_at: float | None = None
        self._rests_until = 0.0
        self._troubles = 0
        self._conn: Connection
        self._probe: WorkProbe

    def connect(self, conn: Connection) -> None:
        """Work over this connection (autocommit) from now on."""
        self._conn = conn
        self._probe = WorkProbe(conn)
        self._renew()

    @property
    def is_working(self) -> bool:
        """Whether anything is in hand, or soon to be."""
        return bool(self._posts) or (not self._loops and self._rests)

    @property
    def _rests(self) -> bool:
        return time.monotonic() < self._rests_until

    @property
    def has_results(self) -> bool:
        """Whether anything that was in hand has ended."""
        return any(post.future is not None and post.future.done() for post in self._posts.values())

    def tick(self, result: PollResult, *, stopping: bool = False) -> PendingWork | None:
        """Record what has ended, and post more; what was found to do (None when stopping)."""
        self._record_answers(result)
        self._watch(stopping)
        if time.monotonic() - self._renewed >= self._lease.total_seconds() / 3:
            self._renew()
        if stopping:
            self._release([post for post in self._posts.values() if post.future is None])
            return None
        if time.monotonic() - self._pruned >= PRUNE_INTERVAL:
            self._pruned = time.monotonic()
            prune_stamps(self._conn)
            claims.prune_published(self._conn)
        found = self._probe.find_work()
        if found.fuses.poller:
            self._recover(result)
            if not self._rests:
                self._claim(result)
            self._start_posts()
        return found

    def wait(self, seconds: float) -> None:
        """Until a post under way has ended."""
        wait([one.future for one in self._posts.values() if one.future], timeout=seconds, return_when=FIRST_COMPLETED)

    def give_up(self) -> None:
        """Give back what is in hand; what can't be given back now comes back when its claim expires."""
        for post in self._posts.values():
            if post.call is not None:
                post.call.abort()
        with suppress(psycopg.Error):
            claims.release(self._conn, [post.claim for post in self._posts.values()])
        self._posts.clear()

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._receiver.close()

    # -- taking

    def _recover(self, result: PollResult) -> None:
        if time.monotonic() - self._recovered < RECOVERY_INTERVAL:
            return
        self._recovered = time.monotonic()
        result.recovered += entries.recover_expired(self._conn, self._lease)
        claims.requeue_due(self._conn)
        # Where external databases are configured elsewhere, whoever serves sweeps.
        if self._loops and self._pipeline.databases and retries.claim_sweep(self._conn):
            entries.enqueue(self._conn, entries.find_existing_tenancies(self._conn, self._pipeline.databases))

    def _claim(self, result: PollResult) -> None:
        # Of single posts, as many are kept ready besides: to look for one claim at a time costs as much as for twenty.
        ahead = self._in_flight if self._receiver.group == 1 else 0
        room = self._in_flight + ahead - len(self._posts)
        if room < max(ahead, 1):
            return
        found, odd = claims.claim(self._conn, room, {post.claim.tenancy for post in self._posts.values()})
        result.claimed += len(found) + odd
        result.delivered += odd
        self._posts.update((one.id, _Post(one)) for one in found)

    def _start_posts(self) -> None:
        """Hand on what is in hand and ready, as far as this process and its flow-control key allow."""
        under_way: dict[str, int] = {}
        for post in self._posts.values():
            if post.future is not None:
                under_way[post.claim.key] = under_way.get(post.claim.key, 0) + 1
        now = time.monotonic()
        ready: list[_Post] = []
        for post in self._posts.values():
            key = post.claim.key
            if sum(under_way.values()) >= self._in_flight:
                break
            has_room = self._receiver.keeps_flow or under_way.get(key, 0) < post.claim.parallelism
            if post.future is None and post.ready_at <= now and has_room:
                under_way[key] = under_way.get(key, 0) + 1
                ready.append(post)
        for start in range(0, len(ready), self._receiver.group):
            together = ready[start : start + self._receiver.group]
            call = Call()
            future = self._executor.submit(self._receiver.send, [post.claim for post in together], call)
            for post in together:
                post.future, post.call = future, call
            future.add_done_callback(lambda future: self._on_done())

    # -- in hand

    def _watch(self, stopping: bool) -> None:
        """Break off what has had its time."""
        if stopping and self._stopped_at is None:
            self._stopped_at = time.monotonic()
        over = self._stopped_at is not None and time.monotonic() - self._stopped_at > STOP_GRACE
        for post in self._posts.values():
            if post.call is not None and (over or time.monotonic() - post.call.started > self._receiver.timeout):
                post.call.abort()

    def _renew(self) -> None:
        self._renewed = time.monotonic()
        times = claims.renew(self._conn, [post.claim for post in self._posts.values()])
        for id_, claimed_at in times.items():
            self._posts[id_].claim = replace(self._posts[id_].claim, claimed_at=claimed_at)

    def _release(self, posts: list[_Post]) -> None:
        if posts:
            with self._conn.transaction():
                claims.release(self._conn, [post.claim for post in posts])
            for post in posts:
                del self._posts[post.claim.id]

    def _record_answers(self, result: PollResult) -> None:
        """Record what the answers mean, and finish or give back the entries; all in one transaction."""
        ended: list[tuple[_Post, Verdict]] = []
        answers: dict[int, Sent] = {}
        left: list[_Post] = []
        for post in self._posts.values():
            if post.future is not None and post.future.done():
                sent = post.future.result()
                answers[id(sent)] = sent
                verdict = sent.verdicts.get(post.claim.id)
                post.future = post.call = None
                if verdict is None:
                    left.append(post)
                    continue
                post.refusals += verdict.busy
                if verdict.busy and post.refusals < PATIENCE:
                    post.ready_at = time.monotonic() + max(verdict.wait.total_seconds(), 0.1)
                else:
                    ended.append((post, verdict))
        self._release(left)
        self._record_verdicts(result, ended)
        for sent in answers.values():
            self._rest(sent)

    def _rest(self, sent: Sent) -> None:
        """Take nothing more for a while, if the receiver does not."""
        if sent.trouble is None:
            self._troubles = 0
            return
        if not self._loops and (sent.wait > SHORT_WAIT or self._troubles >= (PATIENCE if sent.wait else 0)):
            raise sent.trouble
        rest = sent.wait.total_seconds() or min(FIRST_REST * 2**self._troubles, LONGEST_REST) * random.uniform(0.7, 1.3)
        self._troubles += 1
        self._rests_until = max(self._rests_until, time.monotonic() + rest)
        if self._loops:
            self._on_trouble(sent.trouble)

    def _record_verdicts(self, result: PollResult, ended: list[tuple[_Post, Verdict]]) -> None:
        if not ended:
            return
        ended.sort(key=lambda one: one[0].claim.tenancy)
        broken_off = self._stopped_at is not None
        with self._conn.transaction():
            published = [(post.claim, verdict.message) for post, verdict in ended if verdict.message]
            claims.record_published(self._conn, published)
            claims.finish(self._conn, [post.claim for post, verdict in ended if verdict.error is None])
            for post, verdict in ended:
                self._record(result, post.claim, verdict, broken_off=broken_off)
        for post, _ in ended:
            del self._posts[post.claim.id]
        for post, verdict in ended:
            if not verdict.planned:
                outcome = DatabaseResult(post.claim.tenancy, UNDELIVERED, self._receiver.kind)
                if verdict.error is not None:
                    outcome.status, outcome.error, outcome.failed = "error", verdict.error, True
                self._on_result(self._conn, outcome)

    def _record(self, result: PollResult, claim: Claim, verdict: Verdict, *, broken_off: bool) -> None:
        if verdict.error is None or verdict.planned:
            if verdict.planned:
                claims.finish(self._conn, [claim])
            if verdict.repeated:
                entries.enqueue(self._conn, [claim.tenancy])
            if claim.attempt > 1:
                retries.record_success(self._conn, claim.tenancy, UNDELIVERED)
            result.delivered += verdict.error is None
            result.failed += verdict.planned
            return
        if broken_off and verdict.error.code == "endpoint-timeout":
            claims.release(self._conn, [claim])
            return
        result.failed += 1
        dead = retries.record_failure(self._conn, claim.tenancy, UNDELIVERED, verdict.error, scheduled=True)
        if verdict.dead or verdict.wait:
            retries.defer(self._conn, claim.tenancy, UNDELIVERED, None if verdict.dead else verdict.wait)
        if dead or verdict.dead:
            result.dead += 1
            claims.finish(self._conn, [claim])
        else:
            claims.release(self._conn, [claim])

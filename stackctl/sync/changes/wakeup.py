"""How a loop learns that there is work: one cheap query a tick, and notifications where they are asked for.

The ticks go on in any case: a notification can be missed (a transaction that began before anybody listened, a row that
was only locked), a tick can't. With notifications they are merely slower.
"""

from __future__ import annotations

import selectors
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from stackctl.core.errors import StateError
from stackctl.postgres.pooler import find_shared_sessions, read_pid
from stackctl.postgres.statements import load_statements
from stackctl.sync.changes.stamping import compose_probe
from stackctl.sync.queue import fuses, retries
from stackctl.sync.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from psycopg import Notify
    from psycopg.sql import Composable, Composed

    from stackctl.postgres.connect import Connection
    from stackctl.sync.changes.stamping import Stamping

CHANNEL = "stackctl"
SLOW_TICK = 1.0  # seconds between two looks while notifications work
LISTENING_SPAN = timedelta(seconds=60)  # for so long a listener is believed to listen
RENEW_INTERVAL = 20.0  # seconds after which it says so again
STOP_NOTICED = 0.25  # seconds in which a wait for a notification notices the stop
ECHO_WAIT = 2.0  # seconds in which a notification sent on trial must arrive

_SQL = load_statements(__file__)


@dataclass(frozen=True)
class PendingWork:
    """What there is to do. `marked`: the stampings (by number) that have marked rows; `queued`: the poller has work.

    `sweep`: it is time to queue every tenancy. What was not looked for is empty.
    """

    fuses: fuses.Fuses
    marked: frozenset[int] = frozenset()
    queued: bool = False
    sweep_due: bool = False


class WorkProbe:
    """Looks over one connection (autocommit) for marked rows of these stampings; given a `lease`, in the queue too."""

    def __init__(self, conn: Connection, stampings: Sequence[Stamping] = (), *, lease: timedelta | None = None) -> None:
        self._cursor = conn.cursor()
        nothing: Composable = sql.SQL("ARRAY[]::integer[]")
        # The values are spelled out: without parameters the server keeps one plan, and a look costs no planning.
        statement = sql.SQL(_SQL["find_work"]).format(
            marked=sql.SQL("ARRAY({})").format(compose_probe(stampings)) if stampings else nothing,
            queued=_compose_queued(lease) if lease is not None else sql.SQL("false, false"),
        )
        self._statement = statement.as_bytes(conn)  # put together once, not twenty times a second

    def find_work(self) -> PendingWork:
        row = self._cursor.execute(self._statement, {}).fetchone()
        assert row is not None
        sequencer, poller, marked, queued, sweep = row
        return PendingWork(fuses.Fuses(sequencer, poller), frozenset(marked), queued, sweep)


def _compose_queued(lease: timedelta) -> Composed:
    interval = sql.Literal(retries.SWEEP_INTERVAL)
    return sql.SQL(_SQL["find_queued_work"]).format(lease=sql.Literal(lease), sweep=interval)


class Listener:
    """Hears of changes over a connection (autocommit) that its owner goes on using.

    Notifications also arrive with the answers to the owner's statements, and then wait in libpq without anything being
    left to read: so they are taken from there before each wait, which psycopg's own generator does not do.
    """

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._renewed = 0.0
        self._heard: list[str] = []
        self._own = read_pid(conn)
        conn.add_notify_handler(self._hear)

    def _hear(self, notification: Notify) -> None:
        if notification.pid != self._own:
            self._heard.append(notification.payload)

    def _take(self) -> list[str]:
        """The payloads of what others have sent since the last time."""
        pgconn = self._conn.pgconn
        try:
            pgconn.consume_input()
        except psycopg.OperationalError:
            self._conn.execute("")  # fails as well, and says it in the server's words
            raise
        while (notification := pgconn.notifies()) is not None:
            if notification.be_pid != self._own:
                self._heard.append(notification.extra.decode())
        taken, self._heard = self._heard, []
        return taken

    def renew_listening(self) -> None:
        """Say that somebody listens, if it was not said lately."""
        if not self._renewed or time.monotonic() - self._renewed >= RENEW_INTERVAL:
            self._conn.execute(_SQL["renew_listening"], {"span": LISTENING_SPAN})
            self._renewed = time.monotonic()

    def wait(self, seconds: float, stop: Stop, payload: str | None = None) -> bool:
        """Whether somebody else's notification (with this payload) came before the stop or the end of the time.

        One that came since the last wait counts.
        """
        deadline = time.monotonic() + stop.time_left(seconds)
        with selectors.DefaultSelector() as selector:
            selector.register(self._conn.fileno(), selectors.EVENT_READ)
            while True:
                self.renew_listening()
                taken = self._take()
                if taken if payload is None else payload in taken:
                    return True
                left = deadline - time.monotonic()
                if left <= 0 or stop.requested:
                    return False
                selector.select(min(left, STOP_NOTICED))


def open_listener(
    conn: Connection, tables: Sequence[str], connect_sender: Callable[[], AbstractContextManager[Connection]]
) -> Listener:
    """Listen for changes of these tables; another connection sends a notification on trial.

    Raises StateError `no-notifications` where the triggers do not serve, `transaction-pooler` where the session is not
    one of our own: what it listened for would reach others.
    """
    refuse_shared_session(conn)
    row = conn.execute(_SQL["find_tables_without_trigger"], {"tables": list(tables)}).fetchone()
    missing = row[0] if row else None
    if missing is None or missing:
        names = ", ".join(f'"{name}"' for name in missing or tables)
        raise StateError(
            f"no trigger notifies of changes to {names}",
            code="no-notifications",
            hint="run `stackctl migrate up --bundled`; where the application captures changes, keep sync.wakeup: poll",
        )
    conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
    listener = Listener(conn)
    payload = str(uuid.uuid4())
    with connect_sender() as sender:
        sender.execute(_SQL["notify"], {"channel": CHANNEL, "payload": payload})
    if not listener.wait(ECHO_WAIT, Stop(), payload):
        conn.execute(sql.SQL("UNLISTEN {}").format(sql.Identifier(CHANNEL)))
        raise _no_session_error("they do not arrive over this connection")
    return listener


def refuse_shared_session(conn: Connection) -> None:
    """Raise StateError `transaction-pooler` where nobody can listen over this connection."""
    shared = find_shared_sessions(conn)
    if shared is not None:
        raise _no_session_error(f"behind this pooler, {shared}")


def _no_session_error(why: str) -> StateError:
    return StateError(
        f"sync.wakeup: notify needs a connection that receives notifications: {why}",
        code="transaction-pooler",
        hint="name the server itself in database.url, or a pooler in session mode; or set sync.wakeup: poll",
    )

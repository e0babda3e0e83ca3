"""One server process: its socket, the engine behind it, and its orderly end."""

from __future__ import annotations

import contextlib
import errno
import logging
import resource
import socket
import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import uvicorn

from stackctl.core.errors import StackctlError, StateError
from stackctl.server.app import create_app
from stackctl.server.board.routes import Board
from stackctl.server.cron import CronCalls
from stackctl.server.overview import Overview
from stackctl.server.protocol import KEEP_ALIVE, LONGEST_HEAD, PatientProtocol
from stackctl.server.site import Address, Say, Site, read_access
from stackctl.sync import service
from stackctl.sync.changes.wakeup import SLOW_TICK
from stackctl.sync.engine.requests import SyncRequests
from stackctl.sync.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stackctl.config.settings import Settings
    from stackctl.server.metrics import Metrics
    from stackctl.sync.reports import Reports
    from stackctl.sync.stop import Stop

MOST_CONNECTIONS = 1000
OTHER_FILES = 256  # that the process may have open besides: databases, logs, and connections about to be refused
BACKLOG = 128  # connections that wait to be accepted, and are at once
STOP_GRACE = 20  # seconds that requests in hand have to end once the engine has stopped


def serve(
    settings: Settings,
    address: Address,
    stop: Stop,
    *,
    runs: bool,
    max_request: timedelta,
    claim_limit: int,
    reports: Reports,
    metrics: Metrics,
    say: Say,
    on_start: Callable[[Site], None],
) -> None:
    """Serve until the stop; with `runs`, sequencer and poller work in this process as well.

    `on_start` hears of it when connections are accepted. Raises ConfigError for want of keys or of a token, StateError
    `port-taken`, and what the loops raise.
    """
    keys, token = read_access(settings, address)
    pipeline = Pipeline(settings)
    with _listen(address) as (listening, port):
        with pipeline.open_session() as conn:
            pipeline.check_ready(conn, without_missing=True)
        site = Site(
            settings=settings,
            pipeline=pipeline,
            address=replace(address, port=port),
            keys=keys,
            token=token,
            max_request=max_request,
            requests=SyncRequests(),
            overview=Overview(pipeline),
            metrics=metrics,
            history=metrics.history,
            stop=stop,
            say=say,
        )
        loops = _Loops(site, _note_trouble(site, metrics.watch(reports)), runs=runs, claim_limit=claim_limit)
        cron, board = CronCalls(), Board(site)

        def end_requests() -> None:
            cron.stop()
            board.stop()

        server = _Server(_configure(site, cron, board), site, on_stop=end_requests, on_start=lambda: on_start(site))
        loops.start()
        try:
            server.run([listening])
        finally:
            stop.set()
            cron.stop()
            loops.join()
    if loops.failures:
        raise loops.failures[0]


class _Loops:
    """The engine that answers requests, and with `runs` what `stackctl run` does; a thread each."""

    def __init__(self, site: Site, reports: Reports, *, runs: bool, claim_limit: int) -> None:
        self._site = site
        self._reports = reports
        self._claim_limit = claim_limit
        self.failures: list[BaseException] = []
        # Where this process polls by itself, its poller answers the requests as well.
        together = runs and site.settings.get("sync.dispatch") == "direct"
        works = [lambda: self._run(site.requests)] if together else [self._answer]
        if runs and not together:
            works.append(lambda: self._run(None))
        self._threads = [threading.Thread(target=self._carry, args=(one,), name="stackctl-serve") for one in works]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _carry(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            self.failures.append(error)
        finally:
            self._site.stop.set()
            self._site.requests.break_off_all()

    def _run(self, requests: SyncRequests | None) -> None:
        site = self._site
        service.run(site.pipeline, site.stop, claim_limit=self._claim_limit, reports=self._reports, requests=requests)

    def _answer(self) -> None:
        site = self._site
        service.poll(
            site.pipeline,
            site.stop,
            claim_limit=self._claim_limit,
            interval=timedelta(seconds=SLOW_TICK),
            reports=self._reports,
            requests=site.requests,
            takes_entries=False,
        )


class _Server(uvicorn.Server):
    """uvicorn's, ended by our own stop: whoever called us handles the signals."""

    def __init__(
        self, config: uvicorn.Config, site: Site, *, on_start: Callable[[], None], on_stop: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._site = site
        self._on_start = on_start
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._site.stop.requested

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _configure(site: Site, cron: CronCalls, board: Board) -> uvicorn.Config:
    # What uvicorn says of broken requests is of no use to anybody, and what it says of errors we say ourselves.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    # A traceback for each connection that there is no descriptor for: asyncio tries again after a second.
    logging.getLogger("asyncio").addFilter(lambda said: "out of system resource" not in said.getMessage())
    return uvicorn.Config(
        create_app(site, cron, board),
        backlog=BACKLOG,  # uvicorn's own else takes the place of the socket's
        http=PatientProtocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_allow_connections(),
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=STOP_GRACE,
        h11_max_incomplete_event_size=LONGEST_HEAD,
    )


def _allow_connections() -> int:
    """How many there are descriptors for; of these as many as are needed, where the system lets us."""
    wanted = MOST_CONNECTIONS + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MOST_CONNECTIONS
    possible = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
        soft = possible
    return max(soft - OTHER_FILES, soft // 4)


@contextlib.contextmanager
def _listen(address: Address) -> Iterator[tuple[socket.socket, int]]:
    """A socket bound there, and its port. StateError `port-taken`, `address-unusable`."""
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise StateError(
            f"{address.url}: {'the port is taken' if taken else (error.strerror or error)}",
            code="port-taken" if taken else "address-unusable",
            hint="end what listens there, or choose another: --port 8788"
            if taken
            else "serve.host is a name or address of this machine, or 0.0.0.0 or ::",
        ) from None
    with listening:
        # Those that are accepted inherit it; asyncio passes over sockets made like this. Else an answer in two parts
        # waits for the client's acknowledgement, 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listening, listening.getsockname()[1]


def _note_trouble(site: Site, reports: Reports) -> Reports:
    """The same reports; the site hears of the operated database's loss and return."""

    def trouble(error: StackctlError) -> None:
        site.trouble = True
        reports.trouble(error)

    def regained() -> None:
        site.trouble = False
        reports.regained()

    return replace(reports, trouble=trouble, regained=regained)

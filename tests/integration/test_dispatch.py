"""`sync.dispatch: http`: what is posted to an endpoint, and what becomes of the entry by its answer."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from stackctl.sync.dispatch import dispatcher
from stackctl.sync.dispatch.signature import STACKCTL, Keys, verify
from stackctl.sync.engine.poller import PollResult
from stackctl.sync.queue import entries, retries
from tests.backend import MINE, OTHER, Project, ended, failures, fetch, one, poll, wait_for
from tests.serving import KEY, configure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.backend import Connection

Answer = tuple[int, dict[str, str], bytes]
QUEUE = 'SELECT "startedFulfillingAt" IS NOT NULL FROM "OutgoingRequest"'


@dataclass
class Endpoint:
    """One that answers by `reply`; `posts` are the tenancies and headers that came, verified."""

    port: int = 0
    scheme: str = "http"
    reply: Callable[[int], Answer] = lambda number: (200, {}, b"")
    posts: list[tuple[uuid.UUID, dict[str, str]]] = field(default_factory=list[tuple[uuid.UUID, dict[str, str]]])
    at_once: int = 0
    most_at_once: int = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/sync-engine"


@contextmanager
def running(context: ssl.SSLContext | None = None) -> Iterator[Endpoint]:
    found = Endpoint()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            token = headers[STACKCTL.header.lower()]
            verify(token, Keys(KEY), scheme=STACKCTL, url=found.url, body=body, now=time.time())
            with lock:
                found.posts.append((uuid.UUID(json.loads(body)["tenancyId"]), headers))
                number = len(found.posts)
                found.at_once += 1
                found.most_at_once = max(found.most_at_once, found.at_once)
            status, answer, text = found.reply(number)
            with lock:
                found.at_once -= 1
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(text))} | answer).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that has gone

    with Server(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            found.scheme = "https"
        found.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with running() as found:
        yield found


@pytest.fixture
def sending(project: Project, source: Connection, endpoint: Endpoint) -> Project:
    return configure(project, dispatch="http", endpoint=endpoint.url, endpoint_timeout="400ms")


def make_due(source: Connection) -> None:
    source.execute("UPDATE stackctl.delivery SET next_attempt_at = clock_timestamp()")


def record(project: Project) -> list[tuple[str, int, bool]]:
    return [(one.code, one.attempts, one.dead) for one in failures(project.pipeline())]


def test_each_tenancy_is_posted_once(sending: Project, endpoint: Endpoint, source: Connection) -> None:
    entries.enqueue(source, [MINE, OTHER])
    ids = {str(id_) for (id_,) in fetch(source, 'SELECT id FROM "OutgoingRequest"')}
    source.execute(
        """
        INSERT INTO "OutgoingRequest" (id, "qstashOptions", "deduplicationKey")
        SELECT gen_random_uuid(),
               jsonb_build_object('url', '/api/latest/internal/external-db-sync/sync-engine', 'body', body), body::text
        FROM unnest(ARRAY['null', '5', '"x"', '{"tenancyId": 7}', '{"tenancyId": null}']::jsonb[]) AS body
        """
    )
    found = poll(sending.pipeline())
    assert (found.claimed, found.delivered, found.failed, found.dead) == (7, 7, 0, 0)
    assert {tenancy for tenancy, _ in endpoint.posts} == {MINE, OTHER}
    assert {headers["stackctl-entry-id"] for _, headers in endpoint.posts} == ids
    assert {headers["stackctl-attempt"] for _, headers in endpoint.posts} == {"1"}
    assert fetch(source, QUEUE) == []
    assert record(sending) == []


def test_what_fails_stays_and_rests(sending: Project, endpoint: Endpoint, source: Connection) -> None:
    entries.enqueue(source, [MINE])
    endpoint.reply = lambda number: (500, {}, b"")
    outcome = sending.run("poll", "--json")
    assert (outcome.code, outcome.json["failed"]) == (1, 1)
    assert f"{MINE} (endpoint): " in outcome.stderr
    assert "answers 500" in outcome.stderr
    assert fetch(source, QUEUE) == [(False,)]
    assert record(sending) == [("endpoint-refused", 1, False)]
    # A new change does not hurry it, and another tenancy does not wait for it.
    entries.enqueue(source, [MINE, OTHER])
    endpoint.reply = lambda number: (200, {}, b"")
    assert poll(sending.pipeline()).delivered == 1
    assert endpoint.posts[-1][0] == OTHER
    make_due(source)
    assert poll(sending.pipeline()).delivered == 1
    assert endpoint.posts[-1][1]["stackctl-attempt"] == "2"
    assert (record(sending), fetch(source, QUEUE)) == ([], [])


def test_a_dead_letter(sending: Project, endpoint: Endpoint, source: Connection) -> None:
    entries.enqueue(source, [MINE])
    endpoint.reply = lambda number: (404, {}, b"")
    assert poll(sending.pipeline()).dead == 1
    assert record(sending) == [("endpoint-refused", 1, True)]
    assert fetch(source, QUEUE) == []
    assert sending.run("status", "--json").json["queue"]["dead"] == 1
    assert "answers 404" in sending.run("queue", "list").stdout
    assert poll(sending.pipeline()).claimed == 0
    # By hand, and by the next change.
    assert sending.run("queue", "retry", "--all").code == 0
    assert poll(sending.pipeline()).dead == 1
    entries.enqueue(source, [MINE])
    endpoint.reply = lambda number: (200, {}, b"")
    assert poll(sending.pipeline()).delivered == 1
    assert record(sending) == []
    # The twelfth failure in a row makes one as well.
    entries.enqueue(source, [MINE])
    endpoint.reply = lambda number: (502, {}, b"")
    poll(sending.pipeline())
    source.execute("UPDATE stackctl.delivery SET attempts = %s", [retries.MAX_ATTEMPTS - 1])
    make_due(source)
    assert poll(sending.pipeline()).dead == 1
    # Who syncs by himself has no use for the record, and does what was given up.
    sending.sync_settings(dispatch="direct")
    assert poll(sending.pipeline()).delivered == 1
    assert (record(sending), fetch(source, QUEUE)) == ([], [])


def test_one_that_is_busy_is_asked_again(sending: Project, endpoint: Endpoint, source: Connection) -> None:
    entries.enqueue(source, [MINE])
    endpoint.reply = lambda number: (503, {"Retry-After": "0"}, b"") if number < 3 else (200, {}, b"")
    found = poll(sending.pipeline())
    assert (found.claimed, found.delivered, found.failed, len(endpoint.posts)) == (1, 1, 0, 3)
    entries.enqueue(source, [MINE])
    endpoint.reply = lambda number: (503, {"Retry-After": "3600"}, b"")
    assert poll(sending.pipeline()).failed == 1
    assert one(source, "SELECT next_attempt_at > now() + interval '50 minutes' FROM stackctl.delivery")


def test_a_failure_that_is_recorded_elsewhere(sending: Project, endpoint: Endpoint, source: Connection) -> None:
    entries.enqueue(source, [MINE])
    endpoint.reply = lambda number: (500, {"Stackctl-Retry": "planned"}, b"")
    found = poll(sending.pipeline())
    assert (found.delivered, found.failed) == (0, 1)
    assert (record(sending), fetch(source, QUEUE)) == ([], [])


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("redirect", "endpoint-redirects"),
        ("page", "endpoint-not-ours"),
        ("hangs", "endpoint-timeout"),
        ("drips", "endpoint-timeout"),
        ("closes", "endpoint-unreachable"),
        ("gone", "endpoint-unreachable"),
    ],
)
def test_an_endpoint_that_is_none(
    kind: str, code: str, sending: Project, endpoint: Endpoint, source: Connection, tmp_path: Path
) -> None:
    entries.enqueue(source, [MINE])
    over = threading.Event()

    def reply(number: int) -> Answer:
        if kind == "hangs":
            over.wait(10)
        if kind == "closes":
            raise ConnectionError
        return {
            "redirect": (307, {"Location": endpoint.url}, b""),
            "page": (200, {"Content-Type": "text/html"}, b"<html>"),
        }.get(kind, (200, {"Content-Length": "100"}, b""))

    endpoint.reply = reply
    if kind == "gone":
        sending.sync_settings(endpoint="http://127.0.0.1:1/sync-engine")
    found = poll(sending.pipeline())
    over.set()
    assert (found.failed, found.delivered) == (1, 0)
    assert record(sending) == [(code, 1, False)]
    assert len(endpoint.posts) == (kind != "gone")


def test_a_certificate_that_nobody_vouches_for(
    project: Project, source: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with running(context) as endpoint:
        configure(project, dispatch="http", endpoint=endpoint.url)
        entries.enqueue(source, [MINE])
        assert poll(project.pipeline()).failed == 1
        assert "certificate verify failed" in failures(project.pipeline())[0].error
        assert endpoint.posts == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        make_due(source)
        assert poll(project.pipeline()).delivered == 1


def test_no_more_at_a_time_than_the_entries_say(sending: Project, endpoint: Endpoint, source: Connection) -> None:
    sending.sync_settings(endpoint_timeout="20s")
    entries.enqueue(source, [uuid.UUID(int=number) for number in range(1, 13)])
    source.execute("""
        UPDATE "OutgoingRequest" SET "qstashOptions" = jsonb_set("qstashOptions", '{flowControl,parallelism}', '2')
    """)
    met = threading.Barrier(2)

    def reply(number: int) -> Answer:
        met.wait(10)
        return (200, {}, b"")

    endpoint.reply = reply
    assert poll(sending.pipeline()).delivered == 12
    assert endpoint.most_at_once == 2
    # Nor than one process posts: `claim_limit`, 8 in these tests.
    entries.enqueue(source, [uuid.UUID(int=number) for number in range(1, 41)])
    met = threading.Barrier(8)
    assert poll(sending.pipeline()).delivered == 40
    assert endpoint.most_at_once == 8


def test_what_changes_meanwhile_is_posted_again(sending: Project, endpoint: Endpoint, source: Connection) -> None:
    """And an entry that is in other hands by now is left to them."""
    entries.enqueue(source, [MINE])

    def reply(number: int) -> Answer:
        if number == 1:
            entries.enqueue(source, [MINE])
        return (200, {}, b"")

    endpoint.reply = reply
    assert poll(sending.pipeline()).delivered == 2
    entries.enqueue(source, [MINE])

    def lose(number: int) -> Answer:
        source.execute('UPDATE "OutgoingRequest" SET "startedFulfillingAt" = "startedFulfillingAt" + interval \'9 ms\'')
        return (200, {}, b"")

    endpoint.reply = lose
    poll(sending.pipeline())
    assert fetch(source, QUEUE) == [(True,)]


def test_claims_are_renewed(sending: Project, endpoint: Endpoint, source: Connection) -> None:
    """A post that lasts longer than the lease stays ours."""
    entries.enqueue(source, [MINE])
    sending.sync_settings(endpoint_timeout="20s")
    recovered: list[int] = []

    def reply(number: int) -> Answer:
        first = one(source, 'SELECT "startedFulfillingAt" FROM "OutgoingRequest"')
        wait_for(
            lambda: one(source, 'SELECT "startedFulfillingAt" FROM "OutgoingRequest"') > first + timedelta(seconds=0.3)
        )
        recovered.append(entries.recover_expired(source, timedelta(seconds=0.3)))
        return (200, {}, b"")

    endpoint.reply = reply
    assert poll(sending.pipeline(), timedelta(seconds=0.3)).delivered == 1
    assert (recovered, fetch(source, QUEUE)) == ([0], [])


def test_a_poller_that_is_killed_and_one_that_is_stopped(
    sending: Project, endpoint: Endpoint, source: Connection
) -> None:
    entries.enqueue(source, [MINE])
    sending.sync_settings(endpoint_timeout="20s")
    go_on = threading.Event()

    def reply(number: int) -> Answer:
        go_on.wait(10)
        return (200, {}, b"")

    endpoint.reply = reply
    with sending.start("poll") as first:
        wait_for(lambda: endpoint.posts)
        first.kill()
    assert fetch(source, QUEUE) == [(True,)]
    source.execute(
        'UPDATE "OutgoingRequest" SET "startedFulfillingAt" = "startedFulfillingAt" - interval \'2 minutes\''
    )
    second = sending.start("poll", "--loop", "--json")
    wait_for(lambda: len(endpoint.posts) == 2)
    second.send_signal(signal.SIGTERM)
    go_on.set()
    outcome = ended(second)
    assert (outcome.code, outcome.lines[-1]["delivered"], outcome.lines[-1]["recovered"]) == (0, 1, 1)
    assert fetch(source, QUEUE) == []


def test_a_stop_does_not_wait_for_ever(
    sending: Project, endpoint: Endpoint, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was broken off by it has not failed."""
    monkeypatch.setattr(dispatcher, "STOP_GRACE", 0.1)
    entries.enqueue(source, [MINE])
    over = threading.Event()

    def hang(number: int) -> Answer:
        over.wait(10)
        return (200, {}, b"")

    endpoint.reply = hang
    pipeline = sending.sync_settings(endpoint_timeout="20s").pipeline()
    from stackctl.sync.dispatch.endpoint import Endpoint as Sender

    with pipeline.open_session() as conn:
        work = dispatcher.Dispatcher(pipeline, Sender.from_settings(pipeline.settings), claim_limit=5)
        work.connect(conn)
        work.tick(PollResult())
        wait_for(lambda: endpoint.posts)
        while work.is_working:
            work.tick(PollResult(), stopping=True)
            work.wait(0.05)
    over.set()
    work.close()
    assert (record(sending), fetch(source, QUEUE)) == ([], [(False,)])

"""`stackctl serve` as a process: its routes, what it refuses, and its ends."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import signal
import socket
import threading
import time
import uuid
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

from stackctl.sync.dispatch.signature import STACKCTL, UPSTASH, Keys, sign
from stackctl.sync.queue import retries
from tests.backend import (
    MINE,
    OTHER,
    QUEUED,
    Project,
    add_many_users,
    add_user,
    differences,
    ended,
    failures,
    fetch,
    one,
    wait_for,
    wait_until_blocked,
)
from tests.serving import KEY, TOKEN, Server, configure, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.backend import Connection
    from tests.conftest import Connect

SECRET = "whsec_of_the_tests"


@pytest.fixture
def ready(project: Project, source: Connection, external_db: str) -> Project:
    project.settings["payments"] = {"webhook_secrets": ["whsec_of_another", SECRET]}
    configure(project.postgres(MINE, external_db).sqlite(OTHER))
    assert project.run("poll").code == 0  # what is new is queued by whoever sees it first, and all of it by a sweep
    retries.claim_sweep(source)
    return project


def count(url: str, connect: Connect, table: str = "users") -> int:
    with connect(url) as conn:
        return one(conn, f"SELECT count(*) FROM {table}")


def sign_event(body: bytes, secret: str = SECRET, at: float = 0.0) -> str:
    moment = int(time.time() + at)
    return f"t={moment},v0=x, v1={hmac.digest(secret.encode(), f'{moment}.'.encode() + body, hashlib.sha256).hex()}"


def read_answer(answers: BinaryIO) -> bytes:
    """The status of the next one."""
    status, length = answers.readline().split()[1], 0
    while line := answers.readline().strip():
        if line.lower().startswith(b"content-length"):
            length = int(line.split(b":")[1])
    answers.read(length)
    return status


def test_each_route(ready: Project, source: Connection, external_db: str, connect: Connect) -> None:
    add_user(source, MINE)
    with serving(ready) as server:
        assert server.get("/healthz", token=None)[1]["ok"]
        assert server.request("HEAD", "/healthz", token=None)[0] == 200
        status, document = server.get("/readyz")
        assert (status, document["schema"], document["fuses"]) == (200, "ok", {"sequencer": True, "poller": True})

        # For schedulers: until nothing is left, or for so long.
        status, document = server.get("/sequencer")
        assert (status, document["ok"], document["rows"]) == (200, True, 1)
        status, document = server.get("/poller")
        assert (status, document["requests_processed"]) == (200, 1)
        assert count(external_db, connect) == 1
        assert server.get("/poller?maxDurationMs=20")[1]["stopped_by"] == "max-duration"
        for wrong in ("0", "-1", "1.5", "x", "", "9" * 20):
            assert server.get(f"/sequencer?maxDurationMs={wrong}")[0] == 400

        # A signed request, by either sender, for what has changed since.
        add_user(source, MINE)
        assert ready.run("sequence").code == 0
        status, _, document = server.sync(MINE)
        assert (status, document["databases"], document["queued"]) == (200, {"analytics": "ok"}, [])
        assert count(external_db, connect) == 2
        assert server.sync(OTHER, scheme=UPSTASH)[2]["databases"] == {"local": "ok"}
        assert "warning" in server.sync(uuid.UUID(int=0xC))[2]

        status, document = server.get("/status")
        own = ready.run("status", "--json").json
        assert (status, document.keys(), document["tenancies"]) == (200, own.keys(), own["tenancies"])
        status, text = server.get("/metrics")
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert float(lines['stackctl_rows_sent_total{action="upserted",mapping="users"}']) == 2
        assert float(lines['stackctl_queue_entries{state="dead"}']) == 0
        assert float(lines['stackctl_backlog_rows{database="analytics",type="postgres"}']) == 0
        assert 'stackctl_request_duration_seconds_count{route="/sync-engine",status="200"}' in lines
        assert f'stackctl_lag_seconds{{database="local",tenancy="{OTHER}",type="sqlite"}} 0.0' in server.get(
            "/metrics?by=tenancy")[1]  # fmt: skip

        # Nothing that may not be logged is.
        server.process.send_signal(signal.SIGTERM)
        outcome = ended(server.process)
        assert outcome.code == 0
        said = json.dumps(server.log) + outcome.stdout + outcome.stderr
        assert '"path": "/poller"' in said
        assert "by=tenancy" not in said
        assert TOKEN not in said
        assert KEY not in said


def test_events_of_stripes(ready: Project, source: Connection) -> None:
    event = {"object": "event", "id": "evt_1", "type": "invoice.paid", "created": 1800000000, "livemode": False,
             "account": "acct_1", "api_version": "2026-10-28.endive", "data": {"object": {"note": "ä"}}}  # fmt: skip
    body = json.dumps(event, ensure_ascii=False).encode()
    with serving(ready) as server:

        def post(body: bytes, signature: str | None) -> tuple[int, Any]:
            headers = {} if signature is None else {"Stripe_Signature": signature}
            status, _, document = server.request("POST", "/webhooks/stripe", body, token=None, **headers)
            return status, document

        assert post(body, sign_event(body)) == (200, {"received": True, "new": True})
        assert post(body, sign_event(body)) == (200, {"received": True, "new": False})
        for wrong in (None, "", "t=1", "x", sign_event(body, "whsec_x"), sign_event(body, at=-400),
                      sign_event(body, at=400), sign_event(body + b"\n")):  # fmt: skip
            assert post(body, wrong)[0] == 400
        for odd in (b"\xff", b"[]", b"{}", b'{"object": "v2.core.event"}', b"[" * 100_000,
                    body.replace(b"evt_1", b"\\u0000"), body.replace(b"invoice.paid", b"\\ud800"),
                    body.replace(b"evt_1", b"x" * 20_000), body.replace(b'"acct_1"', b"{}"),
                    body.replace(b"1800000000", b"1e400")):  # fmt: skip
            assert post(odd, sign_event(odd))[1]["error"]["code"] == "no-event"
        assert post(b"x" * (1024 * 1024 + 1), "t=1,v1=x")[0] == 413
    kept = fetch(source, "SELECT id, type, account, payload FROM stackctl.webhook_event")
    assert kept == [("evt_1", "invoice.paid", "acct_1", body.decode())]


def test_what_is_refused(ready: Project, source: Connection) -> None:
    body = json.dumps({"tenancyId": str(MINE)}).encode()
    with serving(ready) as server:

        def post(body: bytes | None = body, **headers: str) -> int:
            return server.request("POST", "/sync-engine", body, token=None, **headers)[0]

        def good(body: bytes = body, *, at: float = 0, url: str = server.sync_url, key: str = KEY) -> str:
            return sign(Keys(key), url=url, body=body, jti="x", now=time.time() + at)

        # Signatures: none, wrong, of another URL or body, expired, of the future, another sender's, doubled.
        assert post() == 401
        wrong = ["x", "", good(key="x" * 32), good(url=server.url), good(b"{}"), good(at=-400), good(at=60)]
        assert [post(Stackctl_Signature=one) for one in wrong] == [401] * len(wrong)
        assert post(Upstash_Signature=good()) == 401
        assert post(Upstash_Signature=good(), Stackctl_Signature=good()) == 401
        assert post(Stackctl_Signature=good(), Authorization=f"Bearer {TOKEN}") == 200

        # Bodies: checked after the signature, and not read when they say that they are too large.
        for odd in (b"", b"{}", b"[]", b"null", b'{"tenancyId": 5}', b'{"tenancyId": "x"}', b"\xff", b"[" * 60_000):
            status, headers, document = server.request(
                "POST", "/sync-engine", odd, token=None, Stackctl_Signature=good(odd)
            )
            assert (status, headers["upstash-nonretryable-error"], document["error"]["code"]) == (
                400, "true", "no-tenancy")  # fmt: skip
            assert post(odd) == 401
        head = f"POST /sync-engine HTTP/1.1\r\nHost: x\r\nStackctl-Signature: {good()}\r\n".encode()
        assert b" 413 " in server.send_raw(head + b"Content-Length: 10000000\r\n\r\n")
        endless = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        assert b" 413 " in server.send_raw(endless + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 2)

        # What is no request of ours.
        assert b" 431 " in server.send_raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")
        assert server.request("GET", "/sync-engine")[0] == 405
        assert set(server.request("POST", "/status", b"")[1]["allow"].split(", ")) == {"GET", "HEAD"}
        assert server.request("M" * 5000, "/status")[0] == 405
        while (method := server.read_log("access")["method"])[0] != "M":
            pass
        assert len(method) == 20
        paths = ("//", "//sync-engine", "/../sync-engine", "/%2e%2e/status", "/status/", "/sync-engine/", "/x" * 5000)
        assert [server.get(path)[0] for path in paths] == [404] * len(paths)
        assert server.request("POST", "/sync-engine/", body, Stackctl_Signature=good())[0] == 404

        # The token.
        closed = ("/readyz", "/status", "/metrics", "/sequencer", "/poller")
        assert [server.get(path, token=None)[0] for path in closed] == [401] * len(closed)
        assert [server.get(path, token=TOKEN + "x")[0] for path in closed] == [401] * len(closed)
        assert server.get("/status", Authorization=f"Basic {TOKEN}")[0] == 401
        assert server.get("/status", Authorization=TOKEN)[0] == 401
        assert server.get("/status", Authorization="Bearer \xe4")[0] == 401
        assert server.get("/healthz", token=None, Host="evil.example.com")[0] == 200

    # Without one, this machine alone, under its own names.
    configure(ready, token=None)
    with serving(ready) as server:
        own = (f"127.0.0.1:{server.port}", "localhost", "[::1]:1", "127.0.0.1")
        assert [server.get("/readyz", token=None, Host=name)[0] for name in own] == [200] * len(own)
        others = ("evil.example.com", "127.0.0.1.evil.example.com", "[", "", "127.0.0.1@evil.example.com")
        assert [server.get("/status", token=None, Host=name)[0] for name in others[:-1]] == [421] * 4
        assert server.get("/poller", token=None)[0] == 403

        # What `doctor` makes of the endpoint.
        for changed, status in (({}, "ok"), ({"key": "x" * 32}, "error"), ({"path": "/"}, "warning")):
            configure(ready, token=None, dispatch="http", endpoint=server.sync_url + changed.get("path", ""))
            ready.sync_settings(signing_keys={"current": changed.get("key", KEY)})
            checks = {one["name"]: one["status"] for one in ready.run("doctor", "--json").json["checks"]}
            assert checks["endpoint"] == status
    assert fetch(source, QUEUED) == []


def test_why_it_does_not_start(ready: Project, source: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = ready.run("serve", "--json", "--port", port)
        assert (outcome.code, outcome.json["error"]["code"]) == (5, "port-taken")
    configure(ready, token=None)
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com"):
        outcome = ready.run("serve", "--json", "--host", host)
        assert (outcome.code, outcome.json["error"]["code"]) == (3, "no-serve-token")
    configure(ready)
    outcome = ready.run("serve", "--json", "--host", "192.0.2.1")
    assert (outcome.code, outcome.json["error"]["code"]) == (5, "address-unusable")
    ready.sync_settings(signing_keys={"current": "short"})
    assert ready.run("serve", "--json").json["error"]["code"] == "weak-signing-key"
    ready.sync_settings(signing_keys={"next": KEY})
    outcome = ready.run("serve", "--json")
    assert (outcome.code, outcome.json["error"]["code"]) == (3, "no-signing-key")
    assert ready.run("serve", "--max-request", "10ms").code == 2


def test_what_fails_is_told_and_tried_again(ready: Project, source: Connection, tmp_path: Path) -> None:
    """Its record is here, so that a sender need not ask again."""
    (tmp_path / "folder").mkdir()
    ready.sqlite(OTHER, "folder").sqlite(OTHER, "${NOWHERE}", name="unset")
    with serving(ready) as server:
        status, headers, document = server.sync(OTHER)
        assert (status, headers["stackctl-retry"]) == (500, "planned")
        assert document["error"]["details"]["databases"] == {"local": "failing", "unset": "misconfigured"}
        del ready.settings["tenancies"][str(OTHER)]["external_databases"]["local"]
        ready.write()
        server.read_log("configuration")
        status, headers, document = server.sync(OTHER)
        assert (status, headers.get("upstash-nonretryable-error")) in [(489, "true"), (500, None)]
    assert {one.database for one in failures(ready.pipeline())} == {"unset"}


def test_more_than_can_be_done(ready: Project, source: Connection, external_db: str, connect: Connect) -> None:
    """The rest of a long request is queued; a tenancy in other hands, and one too many, come again."""
    add_many_users(source, 50)
    assert ready.run("sequence").code == 0
    holder = connect(external_db)
    assert ready.run("sync", str(MINE)).code == 0
    add_user(source, MINE)
    assert ready.run("sequence").code == 0
    holder.execute("LOCK TABLE users IN SHARE MODE")
    with serving(ready, "--max-request", "1s") as server:
        status, _, document = server.sync(MINE)
        assert (status, document["databases"], document["queued"]) == (200, {}, ["analytics"])
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(server.sync(MINE)[0])) for _ in range(80)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {200, 503} >= set(answers)
        assert 503 in answers
        # SIGTERM: what is in hand ends, and its request is answered.
        holder.rollback()
        wait_for(lambda: count(external_db, connect) == 51)
        server.process.send_signal(signal.SIGTERM)
        assert ended(server.process).code == 0
    assert differences(ready.pipeline()) == []


def test_a_slow_client_is_cut_off(ready: Project, source: Connection) -> None:
    before = "from stackctl.server import answers, protocol; protocol.HEAD_TIMEOUT = answers.BODY_TIMEOUT = 0.3"
    with serving(ready, before=before) as server:
        assert server.send_raw(b"") == b""
        assert server.send_raw(b"GET /healthz HTTP/1.1\r\nHo") == b""
        head = b"POST /sync-engine HTTP/1.1\r\nHost: x\r\nStackctl-Signature: x\r\nContent-Length: 5\r\n\r\n"
        assert b" 408 " in server.send_raw(head + b"xx")
        again = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock, sock.makefile("rb") as answers:
            for _ in range(2):
                sock.sendall(again)
                assert read_answer(answers) == b"200"
            sock.sendall(b"GET /hea")
            assert answers.read() == b""


def test_a_log_that_nobody_reads_holds_up_nothing(ready: Project, source: Connection) -> None:
    """Nor one whose disk is full; and the server ends."""
    requests = b"GET /healthz?x HTTP/1.1\r\nHost: x\r\n\r\n" * 50
    with serving(ready, "--run", before="from stackctl.core import queued_output as q; q.MOST_LINES = 10") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock, sock.makefile("rb") as answers:
            for _ in range(20):  # 100 kB of log, where the pipe holds 64
                sock.sendall(requests)
                assert {read_answer(answers) for _ in range(50)} == {b"200"}
        assert "stackctl_log_lines_lost_total 0.0" not in server.get("/metrics")[1]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        said, complaint = server.process.communicate()
        assert complaint.count("dropped") == 1
        assert all(json.loads(line)["stage"] == "access" for line in said.splitlines()[:-1])

    # A disk that is full.
    full = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Server(ready.start("serve", "--run", "--json", "--port", port, before=full), port)
    try:
        wait_for(lambda: accepts(port))
        assert server.sync(OTHER)[0] == 200
        assert server.get("/healthz")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        outcome = ended(server.process)
        assert (outcome.code, outcome.stderr.count("dropped")) == (0, 1)
    finally:
        server.process.kill()


def test_calls_of_schedulers_hold_up_nobody_else(ready: Project, source: Connection) -> None:
    few = ("import asyncio.base_events as b; from stackctl.server.cron import ThreadPoolExecutor as T; "
           "b.concurrent.futures.ThreadPoolExecutor = lambda **given: T(2, 'default')")  # fmt: skip
    with serving(ready, before=few) as server:

        def ask(path: str, *, until_taken: bool = False) -> None:
            with suppress(http.client.HTTPException, OSError):  # the server ends
                while server.get(path)[0] == 503 and until_taken:
                    pass

        # A look whether all three are in hand may itself be taken for a moment.
        calls = [
            threading.Thread(target=ask, args=(f"/{name}?maxDurationMs=60000",), kwargs={"until_taken": True})
            for name in ("sequencer", "poller") * 3
        ]
        for one in calls:
            one.start()
        for name in ("sequencer", "poller"):
            wait_for(lambda path=f"/{name}?maxDurationMs=1": server.get(path)[0] == 503)
        assert server.get("/readyz")[0] == 200
        # Nor do those who wait for one long reading of the status.
        with source.transaction():
            source.execute('LOCK TABLE "OutgoingRequest"')
            for path in ("/status", "/board/tenancies") * 3:
                calls.append(threading.Thread(target=ask, args=(path,)))
                calls[-1].start()
            wait_until_blocked(source)
            assert server.get("/readyz")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert ended(server.process).code == 0
        for one in calls:
            one.join()


def test_a_body_that_is_left_unread_closes_the_connection(ready: Project, source: Connection) -> None:
    with serving(ready, before="from stackctl.server import protocol; protocol.LINGER = 0.3") as server:
        head = b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock, sock.makefile("rb") as answers:
            sock.sendall(head)
            assert read_answer(answers) == b"405"
            assert answers.read() == b""
            # What comes is read, so that the answer is not lost, but not for ever.
            with pytest.raises(ConnectionError):
                for _ in range(200):
                    sock.sendall(b"x")
                    time.sleep(0.05)
        # One that came with the request is none.
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock, sock.makefile("rb") as answers:
            for _ in range(2):
                sock.sendall(head.replace(b"60000", b"5") + b"12345")
                assert read_answer(answers) == b"405"


def test_descriptors_run_out(ready: Project, source: Connection) -> None:
    """More clients come than there are descriptors: those that there is room for are served, and the log is calm."""
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (400, {}))"
    for hard, served, beyond in ((400, 120, 350), (2000, 300, 0)):
        with serving(ready, before=few.format(hard)) as server, ExitStack() as clients:

            def connect(count: int, server: Server = server, clients: ExitStack = clients) -> None:
                for _ in range(count):
                    clients.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))

            connect(served)
            assert server.get("/readyz")[0] == 200
            connect(beyond)
            clients.close()
            wait_for(lambda server=server: answers_again(server))
            server.process.send_signal(signal.SIGTERM)
            outcome = ended(server.process)
            assert (outcome.code, outcome.stderr) == (0, "")


def answers_again(server: Server) -> bool:
    try:
        return server.get("/readyz")[0] == 200
    except OSError:
        return False


def test_a_stop_while_it_starts(ready: Project, source: Connection) -> None:
    stopped = ("import importlib.util as u, os, signal; find = u.find_spec; u.find_spec = lambda name: "
               "(name == 'starlette' and os.kill(os.getpid(), signal.SIGTERM), find(name))[1]")  # fmt: skip
    assert ready.run("serve", "--json", "--port", "0", before=stopped).code == 0


def accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_a_server_that_is_killed_in_the_middle(
    ready: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """The poller's post is cut off; another server does it, and the poller's entry goes when it has answered."""
    add_user(source, MINE)
    with serving(ready) as first, serving(ready) as second:
        ready.run("sync", str(MINE))
        add_user(source, MINE)
        assert ready.run("sequence").code == 0
        holder = connect(external_db)
        holder.execute("LOCK TABLE users IN SHARE MODE")
        target = connect(external_db, autocommit=True)
        poller = configure(ready, dispatch="http", endpoint=first.sync_url).start("poll", "--loop", "--json")
        wait_until_blocked(target)
        first.process.kill()
        first.process.wait()
        # The lease of the one that is gone would run out in a minute.
        source.execute("UPDATE stackctl.pending_delivery SET leased_at = leased_at - interval '2 minutes'")
        holder.rollback()
        wait_for(lambda: count(external_db, connect) == 2)
        wait_for(lambda: failures(ready.pipeline()))
        poller.send_signal(signal.SIGTERM)
        assert ended(poller).code == 0
        # It is not reported done before somebody has said so.
        assert len(fetch(source, 'SELECT FROM "OutgoingRequest"')) == 1
        source.execute("UPDATE stackctl.delivery SET next_attempt_at = now()")
        configure(ready, dispatch="http", endpoint=second.sync_url)
        outcome = ready.run("poll", "--json")
        assert (outcome.code, outcome.json["delivered"], outcome.json["failed"]) == (0, 1, 0)
    assert fetch(source, QUEUED) == []
    assert failures(ready.pipeline()) == []
    assert differences(ready.pipeline()) == []


@pytest.mark.parametrize("dispatch", ["direct", "http"])
def test_everything_in_one_process(
    dispatch: str, ready: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """--run; with `http` it posts to itself."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configure(ready, dispatch=dispatch, endpoint=f"http://127.0.0.1:{port}/sync-engine")
    process = ready.start("serve", "--run", "--json", "--port", port)
    server = Server(process, port)
    try:
        server.read_log("start")
        add_user(source, MINE)
        wait_for(lambda: count(external_db, connect) == 1)
        wait_for(lambda: not fetch(source, QUEUED))
        assert server.sync(OTHER)[0] == 200
        process.send_signal(signal.SIGINT)
        assert ended(process).code == 0
    finally:
        process.kill()
    assert failures(ready.pipeline()) == []


def test_the_poller_is_switched_off(ready: Project, source: Connection) -> None:
    """What comes is kept, and done when it is on again."""
    with serving(ready) as server:
        assert ready.run("fuse", "off", "poller").code == 0
        status, _, document = server.sync(OTHER)
        assert (status, document["databases"], document["queued"]) == (200, {}, ["local"])
        assert server.get("/readyz")[1]["fuses"]["poller"] is False
        assert len(fetch(source, QUEUED)) == 1
        assert ready.run("fuse", "on", "poller").code == 0
        wait_for(lambda: not fetch(source, QUEUED))


def test_noise(ready: Project, source: Connection) -> None:
    """Tokens and bodies that are damaged: each is refused, and none reaches the database."""
    import random

    chance = random.Random(21)
    body = json.dumps({"tenancyId": str(MINE)}).encode()
    with serving(ready) as server:
        server.drain()
        token = sign(Keys(KEY), url=server.sync_url, body=body, jti="x", now=time.time()).encode()
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock, sock.makefile("rb") as answers:
            for _ in range(1000):
                at = chance.randrange(len(token) - 1)
                odd = token[:at] + bytes([chance.choice(b"!azAZ09._-=")]) + token[at + chance.randrange(3) :]
                payload = body if chance.random() < 0.7 else chance.randbytes(chance.randrange(80))
                if odd == token and payload == body:
                    continue
                name = chance.choice([STACKCTL, UPSTASH]).header.encode()
                sock.sendall(b"POST /sync-engine HTTP/1.1\r\nHost: x\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s"
                             % (name, odd, len(payload), payload))  # fmt: skip
                assert read_answer(answers) == b"401", (odd, payload)
    assert fetch(source, QUEUED) == []

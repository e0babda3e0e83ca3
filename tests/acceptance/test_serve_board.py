"""The board of `stackctl serve`: what it answers and refuses, and how it behaves in a real browser."""

from __future__ import annotations

import http.client
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from stackctl.core.errors import ServiceError
from stackctl.sync.queue import fuses, retries
from tests.backend import DEADLINE, MINE, OTHER, Project, add_many_users, add_user, fetch, wait_for
from tests.browsing import Visit, browsing, visiting
from tests.serving import TOKEN, Server, configure, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from tests.backend import Connection

MARKUP = "<img src=x onerror=alert(1)> refused"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.fixture
def ready(project: Project, source: Connection, external_db: str) -> Project:
    configure(project.postgres(MINE, external_db).sqlite(OTHER))
    assert project.run("poll").code == 0
    retries.claim_sweep(source)
    return project


def give_up(source: Connection, tenancy: Any = OTHER, database: str = "local") -> None:
    error = ServiceError(MARKUP, code="refused")
    retries.record_failure(source, tenancy, database, error, scheduled=True)
    retries.defer(source, tenancy, database, None)


class Events:
    """A stream of the board's."""

    def __init__(self, server: Server, **headers: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
        self._connection.request("GET", "/board/events", headers=headers)
        self._response = self._connection.getresponse()
        self.status = self._response.status

    def read(self) -> dict[str, Any] | None:
        """The next state; None when the stream has ended."""
        while line := self._response.readline():
            if line.startswith(b"data: "):
                return json.loads(line[6:])
        return None

    def close(self) -> None:
        self._response.close()
        self._connection.close()


def log_in(server: Server, token: str = TOKEN, **headers: str) -> tuple[int, dict[str, str]]:
    body = json.dumps({"token": token}).encode()
    status, found, _ = server.request("POST", "/board/login", body, token=None, **({"Origin": server.url} | headers))
    return status, found


def test_who_may_do_what(ready: Project, source: Connection) -> None:
    give_up(source)
    with serving(ready) as server:
        # The page holds nothing that needs a login, and lets nothing in.
        for path, type_ in (
            ("/", "text/html"),
            ("/board/board.css", "text/css"),
            ("/board/board.js", "text/javascript"),
        ):
            status, headers, text = server.request("GET", path, token=None)
            assert (status, headers["content-type"]) == (200, f"{type_}; charset=utf-8")
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["content-security-policy"].startswith("default-src 'none'; ")
            assert not re.search(r"innerHTML|https?://(?!www\.w3\.org/2000/svg)", text)
        for path in ("/board/events", "/board/tenancies"):
            assert server.request("GET", path, token=None)[0] == 401
            assert server.request("GET", path, token=None, Cookie="stackctl_board=1.2.3")[0] == 401
        assert server.get("/board/tenancies")[1]["total"] == 2
        for query in ("page=0", "page=x", "page=%C2%B2", "page=", "page=99999999", "order=x"):
            assert server.get(f"/board/tenancies?{query}")[0] == 400

        # A login, by the page of this server alone.
        assert log_in(server, "wrong")[0] == 401
        for origin in ("", "null", "https://other.example", server.url + ".other.example"):
            assert log_in(server, Origin=origin)[0] == 403
        status, headers = log_in(server)
        assert status == 200
        cookie, _, attributes = headers["set-cookie"].partition("; ")
        assert attributes == "Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"
        assert TOKEN not in cookie
        form = server.get("/board/session", token=None, Cookie=cookie)[1]["form_token"]

        # A change needs all three: the cookie, the origin, and the form's token.
        good = {"Cookie": cookie, "Origin": server.url, "X_Stackctl_Form": form}

        def change(path: str, body: Any, **headers: str) -> tuple[int, Any]:
            status, _, document = server.request(
                "POST", f"/board/{path}", json.dumps(body).encode(), token=None, **headers
            )
            return status, document

        off = {"name": "poller", "on": False}
        for missing, status in (("Cookie", 401), ("Origin", 403), ("X_Stackctl_Form", 403)):
            assert change("fuse", off, **{name: value for name, value in good.items() if name != missing})[0] == status
        assert change("fuse", off, **good | {"Authorization": f"Bearer {TOKEN}", "Cookie": ""})[0] == 401
        assert fuses.read_fuses(source).poller
        assert change("fuse", off, **good)[0] == 200
        assert not fuses.read_fuses(source).poller
        assert server.read_log("board")["change"] == "fuse off poller"

        for path, wrong in (("fuse", {"name": "engine", "on": True}), ("fuse", {"name": "poller", "on": 1}),
                            ("fuse", []), ("retry", {}), ("retry", {"tenancy": str(MINE), "database": 1}),
                            ("retry", {"tenancy": 1}), ("enqueue", {"tenancy": "x"}), ("enqueue", None)):  # fmt: skip
            assert change(path, wrong, **good)[0] == 400
        assert change("retry", {"tenancy": str(MINE), "database": "analytics"}, **good)[0] == 404
        assert change("enqueue", {"tenancy": "0000000c-0000-0000-0000-000000000000"}, **good)[0] == 404
        assert change("enqueue", {"tenancy": str(MINE)}, **good) == (200, {"ok": True, "queued": 1})
        assert change("enqueue", {"all": True}, **good) == (200, {"ok": True, "queued": 2})
        assert change("retry", {"all": True}, **good)[1]["retried"] == 1
        assert "Max-Age=0" in server.request("POST", "/board/logout", b"{}", token=None, **good)[1]["set-cookie"]


def test_without_a_token_it_only_shows(ready: Project) -> None:
    configure(ready, token=None)
    with serving(ready) as server:
        assert server.get("/board/session", token=None)[1] == {"login": False, "in": True, "form_token": None}
        assert server.get("/board/tenancies", token=None)[0] == 200
        for path in ("/", "/board/events", "/board/session", "/board/tenancies"):
            assert server.request("GET", path, token=None, Host="rebound.example")[0] == 421
        for path in ("login", "logout", "fuse", "retry", "enqueue"):
            assert server.request("POST", f"/board/{path}", b"{}", token=None, Origin=server.url)[0] == 403


def test_all_viewers_are_told_the_same(ready: Project, source: Connection) -> None:
    with serving(ready) as server:
        viewers = [Events(server, Authorization=f"Bearer {TOKEN}") for _ in range(20)]
        assert all((state := viewer.read()) is not None and state["fuses"]["poller"] for viewer in viewers)
        fuses.switch_fuse(source, "poller", on=False)
        states = [
            next(state for state in iter(viewer.read, None) if not state["fuses"]["poller"]) for viewer in viewers
        ]
        assert len({state["now"] for state in states}) == 1  # to the microsecond: read once
        for viewer in viewers[1:]:
            viewer.close()
        # The stream ends with the server, which does not wait for its viewers to go.
        server.process.terminate()
        while viewers[0].read() is not None:
            pass
        assert server.process.wait(DEADLINE) == 0
        viewers[0].close()


def test_pages_in_a_browser_that_only_shows(ready: Project, browser: Browser) -> None:
    configure(ready, token=None)
    short = "from stackctl.server.board import document; document.PAGE = 1"
    with serving(ready, before=short) as server, visiting(browser, server) as visit:
        page = visit.page
        tenancies = page.get_by_role("table", name="Tenancies, worst first")
        for turn in ("Next", "Previous", "Next"):
            page.get_by_role("button", name=turn).click()
            tenancies.get_by_text(str(OTHER if turn == "Next" else MINE)).wait_for()
        assert page.get_by_role("button").all_inner_texts() == ["Previous", "Next"]
        page.get_by_text("This page only shows").wait_for()
        assert (visit.complaints, visit.strangers) == ([], [])


def sign_in(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("The token of this server").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("Live", exact=True).wait_for()


def test_in_a_browser(ready: Project, source: Connection, browser: Browser) -> None:
    give_up(source)
    with serving(ready, "--run") as server, visiting(browser, server) as visit:
        page = visit.page
        page.get_by_label("The token of this server").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        page.get_by_text("that is not the token").wait_for()
        assert "401" in visit.complaints.pop()  # the browser's own word for it
        sign_in(visit)

        # What a database says is text. It is tried again, and works.
        dead = page.get_by_role("region", name="Dead letters")
        dead.get_by_text(MARKUP).wait_for()
        assert page.locator("img").count() == 0
        dead.get_by_role("button", name=f"Retry local of {OTHER}").click()
        dead.get_by_text("Nothing was given up.").wait_for()
        wait_for(lambda: retries.list_failures(source) == [])

        # A fuse, off and on; what changes meanwhile is seen without a reload.
        page.get_by_role("button", name="Switch off the poller").click()
        page.get_by_role("button", name="Switch on the poller").wait_for()
        assert not fuses.read_fuses(source).poller
        add_many_users(source, 1234)
        tenancies = page.get_by_role("table", name="Tenancies, worst first")
        row = tenancies.get_by_role("row").filter(has_text=str(MINE))
        row.get_by_role("cell", name="1,234").wait_for()
        page.get_by_label("Search").fill("sqlite")
        row.wait_for(state="detached")
        assert tenancies.get_by_role("row").filter(has_text=str(OTHER)).count() == 1
        page.get_by_label("Search").fill("")
        page.get_by_role("button", name="Switch on the poller").click()
        row.get_by_role("cell", name="0", exact=True).wait_for()
        page.get_by_role("img", name=re.compile("rows sent, last 15 minutes, at most")).wait_for()
        # It survives a reload, and so does what was done.
        page.reload()
        page.get_by_role("img", name=re.compile("rows sent, last 15 minutes, at most")).wait_for()

        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", background))) < 200) == (scheme == "dark")
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert (visit.complaints, visit.strangers) == ([], [])

        # The server goes, and another comes.
        server.process.terminate()
        page.get_by_text("The server does not answer.").wait_for()
        assert server.process.wait(DEADLINE) == 0
        add_user(source, MINE)
        with serving(ready, port=server.port):
            page.get_by_text("Live", exact=True).wait_for()
            page.get_by_role("button", name="Log out").click()
            page.get_by_label("The token of this server").wait_for()
        assert fetch(source, 'SELECT "pollerEnabled" FROM "ExternalDbSyncMetadata"') == [(True,)]

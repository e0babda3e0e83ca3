"""The board: one page, its files, what it shows, and what can be done from it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from starlette.responses import Response, StreamingResponse

from stackctl.server.answers import Refused, answer
from stackctl.server.board.access import Access
from stackctl.server.board.live import Live
from stackctl.server.board.sessions import LIFETIME
from stackctl.sync.queue import entries, fuses, retries

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from stackctl.postgres.connect import Connection
    from stackctl.server.app import Handler
    from stackctl.server.site import Site

FILES = Path(__file__).parent / "files"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".html": "text/html"}
_T = TypeVar("_T")

LONGEST_SEARCH = 100  # characters
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class Board:
    """Its handlers, with the viewers and the sessions that they share."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._access = Access(site)
        self._live = Live(site)
        self.stop = self._live.stop

    def list_routes(self) -> list[tuple[str, str, Handler]]:
        return [
            ("GET", "/", _serve_file(FILES / "board.html")),
            *(("GET", f"/board/{one.name}", _serve_file(one)) for one in FILES.iterdir() if one.suffix != ".html"),
            ("GET", "/board/session", self._session),
            ("POST", "/board/login", self._log_in),
            ("POST", "/board/logout", self._log_out),
            ("GET", "/board/events", self._events),
            ("GET", "/board/tenancies", self._tenancies),
            ("POST", "/board/fuse", self._switch),
            ("POST", "/board/retry", self._retry),
            ("POST", "/board/enqueue", self._enqueue),
        ]

    async def _session(self, request: Request, site: Site) -> Response:
        return answer(self._access.to_document(request))

    async def _log_in(self, request: Request, site: Site) -> Response:
        cookie = await self._access.log_in(request)
        return answer({"ok": True}, headers={"Set-Cookie": self._access.make_cookie(cookie, age=LIFETIME)})

    async def _log_out(self, request: Request, site: Site) -> Response:
        await self._access.read_change(request)
        return answer({"ok": True}, headers={"Set-Cookie": self._access.make_cookie("", age=0)})

    async def _events(self, request: Request, site: Site) -> Response:
        end = self._access.check_viewer(request)
        self._live.check_room()
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"}
        return StreamingResponse(self._live.watch(end), headers=headers, media_type="text/event-stream")

    async def _tenancies(self, request: Request, site: Site) -> Response:
        """A page of them: `search`, `page`, `order` (backlog, lag)."""
        self._access.check_viewer(request)
        asked = request.query_params
        page, order = asked.get("page", "1"), asked.get("order", "backlog")
        if not (page.isascii() and page.isdigit() and 0 < len(page) < 7 and int(page)):
            raise Refused(400, "invalid-page", "page is a positive whole number")
        if order not in ("backlog", "lag"):
            raise Refused(400, "invalid-order", "order is backlog or lag")
        search = asked.get("search", "")[:LONGEST_SEARCH]

        def find() -> dict[str, Any]:
            return self._live.find_summary().find_page(search, int(page), order)

        return answer(await asyncio.get_running_loop().run_in_executor(site.overview.thread, find))

    async def _switch(self, request: Request, site: Site) -> Response:
        asked = await self._access.read_change(request)
        name, on = asked.get("name"), asked.get("on")
        if name not in ("sequencer", "poller") or not isinstance(on, bool):
            raise Refused(400, "invalid-fuse", "name is sequencer or poller, and on is true or false")
        await self._change(
            request, f"fuse {'on' if on else 'off'} {name}", lambda conn: fuses.switch_fuse(conn, name, on=on)
        )
        return answer({"ok": True})

    async def _retry(self, request: Request, site: Site) -> Response:
        """One database, or with `all` whatever fails."""
        asked = await self._access.read_change(request)
        everything = asked.get("all") is True
        tenancy, database = (None, None) if everything else (_read_tenancy(asked), asked.get("database"))
        if not everything and not isinstance(database, str):
            raise Refused(400, "invalid-database", "database is the id of one")
        chosen = None if tenancy is None or database is None else [(tenancy, database)]
        named = "everything" if chosen is None else f"{tenancy} {database}"
        found = await self._change(request, f"retry {named}", lambda conn: retries.retry_now(conn, chosen))
        if not found and not everything:
            raise Refused(404, "not-failing", "that database does not fail any more")
        return answer({"ok": True, "retried": len(found)})

    async def _enqueue(self, request: Request, site: Site) -> Response:
        """One tenancy, or with `all` every one that is configured."""
        asked = await self._access.read_change(request)
        wanted = list(site.pipeline.databases) if asked.get("all") is True else [_read_tenancy(asked)]

        def enqueue(conn: Connection) -> int:
            return entries.enqueue(conn, entries.find_existing_tenancies(conn, wanted))

        named = "everything" if asked.get("all") is True else str(wanted[0])
        queued = await self._change(request, f"enqueue {named}", enqueue)
        if not queued and asked.get("all") is not True:
            raise Refused(404, "unknown-tenancy", "that tenancy does not exist in the operated database")
        return answer({"ok": True, "queued": queued})

    async def _change(self, request: Request, what: str, work: Callable[[Connection], _T]) -> _T:
        def carry_out() -> _T:
            with self._site.pipeline.open_session() as conn:
                return work(conn)

        done = await asyncio.to_thread(carry_out)
        client = request.client.host if request.client is not None else None
        self._site.say("board", f"board: {what}, asked for by {client}", {"change": what, "client": client})
        self._live.hurry()
        return done


def _serve_file(path: Path) -> Handler:
    body = path.read_bytes()

    async def serve(request: Request, site: Site) -> Response:
        if site.token is None:
            site.check_access(request)
        return Response(body, headers=HEADERS, media_type=TYPES[path.suffix])

    return serve


def _read_tenancy(asked: dict[str, Any]) -> UUID:
    try:
        return UUID(asked["tenancy"])
    except (KeyError, ValueError, TypeError, AttributeError):
        raise Refused(400, "invalid-tenancy", "tenancy is a uuid") from None

"""The routes, and what happens around each of them: the access log, the durations, and what errors become."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from stackctl.core.errors import ServiceError, StackctlError, StateError
from stackctl.server import health
from stackctl.server.answers import Refused, answer
from stackctl.server.protocol import LONGEST_HEAD
from stackctl.server.site import SYNC_PATH, Site
from stackctl.server.sync_engine import sync_engine
from stackctl.server.webhooks import stripe_webhook

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from stackctl.server.board.routes import Board
    from stackctl.server.cron import CronCalls

    Handler = Callable[[Request, Site], Awaitable[Response]]

LONGEST_PATH = 200  # characters of it that are logged
LONGEST_METHOD = 20


def create_app(site: Site, cron: CronCalls, board: Board) -> ASGIApp:
    """All routes, for requests whose line and headers have a sane size: what came at once, h11 does not measure."""
    routes = _route(site, cron, board)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        size = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(n) + len(v) for n, v in scope["headers"])
        if size > LONGEST_HEAD:
            refused = Refused(431, "head-too-large", f"line and headers are larger than {LONGEST_HEAD} bytes")
            await refused.to_response()(scope, receive, send)
        else:
            await routes(scope, receive, send)

    return app


def _route(site: Site, cron: CronCalls, board: Board) -> Starlette:
    routes: list[tuple[str, str, Handler]] = [
        ("POST", SYNC_PATH, sync_engine),
        ("POST", "/webhooks/stripe", stripe_webhook),
        ("GET", "/sequencer", cron.sequencer),
        ("GET", "/poller", cron.poller),
        ("GET", "/healthz", health.healthz),
        ("GET", "/readyz", health.readyz),
        ("GET", "/status", health.status),
        ("GET", "/metrics", health.metrics),
        *board.list_routes(),
    ]

    async def refuse(request: Request, error: Exception) -> Response:
        """404 and 405, by the words of HTTP."""
        assert isinstance(error, HTTPException)
        refused = Refused(error.status_code, "not-found" if error.status_code == 404 else "wrong-method", error.detail,
                          error.headers)  # fmt: skip
        _note(site, request, "other", refused.status, time.monotonic())
        return refused.to_response()

    app = Starlette(
        routes=[
            Route(path, _around(site, path, handler), methods=[method], include_in_schema=False)
            for method, path, handler in routes
        ],
        exception_handlers={HTTPException: refuse},
    )
    app.router.redirect_slashes = False
    return app


def _around(site: Site, path: str, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        started = time.monotonic()
        try:
            response = await handler(request, site)
        except Refused as refused:
            response = refused.to_response()
        except StackctlError as error:
            passing = isinstance(error, ServiceError | StateError)
            response = answer(
                {"error": {"code": error.code, "message": error.message}},
                503 if passing else 500,
                {"Retry-After": "5"} if passing else {},
            )
        except Exception as error:  # noqa: BLE001 - a bug in one request ends that request alone
            site.say_bug(path, error)
            response = answer({"error": {"code": "bug", "message": "this is a bug in stackctl; see its log"}}, 500)
        _note(site, request, path, response.status_code, started)
        return response

    return handle


def _note(site: Site, request: Request, route: str, status: int, started: float) -> None:
    """Neither queries nor headers are logged: these hold secrets."""
    seconds = time.monotonic() - started
    site.metrics.count_request(route, status, seconds)
    path = request.url.path[:LONGEST_PATH]
    method = request.method[:LONGEST_METHOD]
    client = request.client.host if request.client is not None else None
    site.say(
        "access",
        f"{method} {path} {status} {seconds * 1000:.0f} ms {client}",
        {"method": method, "path": path, "status": status, "ms": round(seconds * 1000), "client": client},
    )

"""GET /healthz, /readyz, /status and /metrics."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from stackctl import __version__
from stackctl.core.errors import StackctlError
from stackctl.server.answers import answer
from stackctl.server.metrics import CONTENT_TYPE
from stackctl.sync.queue.fuses import read_fuses

if TYPE_CHECKING:
    from starlette.requests import Request

    from stackctl.server.site import Site

READY_TIMEOUT = 5.0  # seconds in which the operated database must answer
STATUS_AGE = 1.0  # seconds that a status may be old
METRICS_AGE = 15.0  # seconds after which it is read again for the next scrape


async def healthz(request: Request, site: Site) -> Response:
    """The process is there."""
    return answer({"ok": True, "version": __version__})


async def readyz(request: Request, site: Site) -> Response:
    """It can work: the operated database answers, and was migrated. A fuse that is off is told, and is no fault."""
    site.check_access(request)
    document: dict[str, Any] = {"ok": False, "database": "error", "schema": "unknown", "fuses": None}
    try:
        async with asyncio.timeout(READY_TIMEOUT):
            await asyncio.to_thread(_look, site, document)
    except TimeoutError:
        document["error"] = {"code": "no-answer", "message": "the operated database does not answer in time"}
    except StackctlError as error:
        document["error"] = {"code": error.code, "message": error.message}
    if site.stop.requested:
        document["ok"] = False
        document["error"] = {"code": "stopping", "message": "the server is stopping"}
    return answer(document, 200 if document["ok"] else 503)


def _look(site: Site, document: dict[str, Any]) -> None:
    with site.pipeline.open_session() as conn:
        document["database"] = "ok"
        site.pipeline.check_migrated(conn)
        document["schema"] = "ok"
        fuses = read_fuses(conn)
        document["fuses"] = {"sequencer": fuses.sequencer, "poller": fuses.poller}
    document["ok"] = not site.trouble


async def status(request: Request, site: Site) -> Response:
    """The document of `stackctl status --json`."""
    site.check_access(request)
    return answer(
        await asyncio.get_running_loop().run_in_executor(site.overview.thread, site.overview.to_document, STATUS_AGE)
    )


async def metrics(request: Request, site: Site) -> Response:
    """What was read last, at once; it is read again for the next time. Without a status while none is to be had."""
    site.check_access(request)
    by_tenancy = request.query_params.get("by") == "tenancy"
    if site.overview.last is None:
        try:
            await asyncio.get_running_loop().run_in_executor(site.overview.thread, site.overview.read, METRICS_AGE)
        except StackctlError:
            site.metrics.count_failed_reading()
    elif site.overview.age > METRICS_AGE:
        threading.Thread(target=_read_again, args=(site,), name="stackctl-overview", daemon=True).start()
    text = await asyncio.to_thread(site.metrics.to_text, site.overview.last, by_tenancy=by_tenancy)
    return Response(text, headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})


def _read_again(site: Site) -> None:
    try:
        site.overview.read(METRICS_AGE)
    except StackctlError:
        site.metrics.count_failed_reading()

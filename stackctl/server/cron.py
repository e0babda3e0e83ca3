"""GET /sequencer and /poller: for schedulers that call a URL."""

from __future__ import annotations

import asyncio
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from stackctl.server.answers import Refused, answer, busy
from stackctl.sync import service
from stackctl.sync.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from stackctl.server.site import Site

LONGEST = timedelta(minutes=10)
CLAIM_LIMIT = 100  # queue entries taken at a time
AT_A_TIME = 3  # calls of each that may overlap: cron comes every minute, and a call may take three


class CronCalls:
    """The calls under way; the server's end is theirs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # They take minutes: the threads that asyncio has for everything are for what is short.
        self._threads = ThreadPoolExecutor(2 * AT_A_TIME, "stackctl-cron")
        self._stops: dict[str, list[Stop]] = {"sequencer": [], "poller": []}

    def stop(self) -> None:
        with self._lock:
            for stops in self._stops.values():
                for stop in stops:
                    stop.set()

    async def sequencer(self, request: Request, site: Site) -> Response:
        """Stamp until nothing is left; with maxDurationMs, for so long."""

        def work(stop: Stop, interval: timedelta | None) -> dict[str, Any]:
            passes: list[service.SequenceResult] = []
            reports = site.metrics.watch(service.Reports(sequenced=passes.append))
            last = service.sequence(
                site.pipeline,
                stop,
                batch_size=site.settings.get("sync.stamp_batch_size"),
                interval=interval,
                reports=reports,
            )
            if interval is None or last.rows:
                reports.sequenced(last)
            return {
                "ok": True,
                "iterations": sum(one.batches for one in passes),
                "rows": sum(one.rows for one in passes),
                "stopped_by": last.stopped_by,
            }

        return await self._call("sequencer", request, site, work)

    async def poller(self, request: Request, site: Site) -> Response:
        """Process the queue until nothing is left; with maxDurationMs, for so long."""

        def work(stop: Stop, interval: timedelta | None) -> dict[str, Any]:
            passes: list[service.PollResult] = []
            last = service.poll(
                site.pipeline,
                stop,
                claim_limit=CLAIM_LIMIT,
                interval=interval,
                reports=site.metrics.watch(service.Reports(polled=passes.append)),
            )
            passes.append(last)
            return {
                "ok": True,
                "requests_processed": sum(one.claimed for one in passes),
                "failed": sum(one.failed for one in passes),
                "stopped_by": last.stopped_by,
            }

        return await self._call("poller", request, site, work)

    async def _call(
        self, name: str, request: Request, site: Site, work: Callable[[Stop, timedelta | None], dict[str, Any]]
    ) -> Response:
        site.check_token(request)
        longest = _read_duration(request)
        stop = Stop(longest or LONGEST)
        with self._lock:
            if len(self._stops[name]) >= AT_A_TIME:
                raise busy("busy", f"{AT_A_TIME} such calls are under way", seconds=60)
            self._stops[name].append(stop)
        if site.stop.requested:
            stop.set()
        try:
            interval = site.settings.get(f"sync.{name}_interval") if longest is not None else None
            return answer(await asyncio.get_running_loop().run_in_executor(self._threads, work, stop, interval))
        finally:
            with self._lock:
                self._stops[name].remove(stop)


def _read_duration(request: Request) -> timedelta | None:
    given = request.query_params.get("maxDurationMs")
    if given is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", given) or int(given) == 0:
        raise Refused(400, "invalid-duration", "maxDurationMs is a positive whole number")
    return min(timedelta(milliseconds=int(given)), LONGEST)

"""stackctl serve"""

from __future__ import annotations

import importlib.util
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl import __version__
from stackctl.cli.arguments import parse_wait_option
from stackctl.cli.command import Run, command
from stackctl.cli.pipeline.run import list_reports
from stackctl.cli.pipeline.service_log import ServiceLog
from stackctl.cli.pipeline.shared import CLAIM_LIMIT, stop_on_signals
from stackctl.core.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from stackctl.server.site import Site

MAX_REQUEST = timedelta(seconds=60)
SHORTEST_REQUEST = timedelta(seconds=1)
NEEDED = ("starlette", "uvicorn", "prometheus_client")


@command(example="stackctl serve\nstackctl serve --run --port 8788")
def serve(
    run: Run,
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Where to listen; serve.host, 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Where to listen; serve.port, 8787. 0: any.")
    ] = None,
    runs: Annotated[bool, typer.Option("--run", help="Also do what `stackctl run` does, in this process.")] = False,
    max_request: Annotated[
        str | None,
        typer.Option("--max-request", metavar="DURATION", help="Longest time that a request is answered in; 60s."),
    ] = None,
) -> None:
    """Sync tenancies on signed HTTP requests; the board in the browser; health, status and metrics for other programs.

    Routes: GET / is the board; POST /sync-engine and /webhooks/stripe, signed; GET /sequencer and /poller, with the
    token, for schedulers; GET /healthz, /readyz, /status, /metrics. Needs
    `pip install 'stackctl[serve]'` and a signing key.

    Ctrl-C or SIGTERM ends it: no new requests, those in hand end after the batch in hand, exit code 0; a second one
    ends it at once.

    Prints a line for each request, and for each sync that sent something or failed.
    Exit codes: 0 ended by a signal; 3 no signing key, or bound to where others reach it without serve.token; 4 the
    operated database can't be reached; 5 it was never migrated, or the port is taken.
    """
    with stop_on_signals(None, loop=True) as stop:
        _check_installed()
        from stackctl.server import process
        from stackctl.server.history import History
        from stackctl.server.metrics import Metrics
        from stackctl.server.site import Address

        longest = MAX_REQUEST if max_request is None else parse_wait_option(max_request, "--max-request")
        if longest < SHORTEST_REQUEST:
            raise UsageError(f"--max-request: {max_request!r} is less than 1s", code="usage")
        settings = run.settings
        address = Address(
            settings.get("serve.host") if host is None else host,
            settings.get("serve.port") if port is None else port,
            settings.get("serve.public_url") or None,
        )
        log, metrics = ServiceLog(run, documents=True), Metrics(History())
        with run.console.queued(metrics.count_lost_line):
            process.serve(
                settings,
                address,
                stop,
                runs=runs,
                max_request=longest,
                claim_limit=CLAIM_LIMIT,
                reports=list_reports(log),
                metrics=metrics,
                say=log.say,
                on_start=lambda site: _start(log, site, runs=runs),
            )
            log.say("end", f"stopped by {stop.reason}", {"stopped_by": stop.reason})


def _check_installed() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ConfigError(
            f"`serve` needs {', '.join(missing).replace('_', '-')}, which {verb} not installed",
            code="missing-extra",
            hint="pip install 'stackctl[serve]'",
        )


def _start(log: ServiceLog, site: Site, *, runs: bool) -> None:
    document: dict[str, Any] = {
        "version": __version__,
        "url": site.address.url,
        "sync_url": site.address.sync_url,
        "run": runs,
        "dispatch": site.settings.get("sync.dispatch"),
    }
    also = ", and runs sequencer and poller" if runs else ""
    log.say(
        "start", f"stackctl {__version__} serves at {site.address.url}{also}; Ctrl-C ends it after what is in hand",
        document,
    )  # fmt: skip

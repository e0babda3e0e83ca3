"""stackctl poll"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.pipeline.service_log import ServiceLog
from stackctl.cli.pipeline.shared import (
    CLAIM_LIMIT,
    Interval,
    Loop,
    MaxDuration,
    finish_stage,
    loop_interval,
    report_result,
    stop_on_signals,
    warn_of_failure,
)
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from stackctl.sync.engine.poller import PollResult


@command(example="stackctl poll\nstackctl poll --loop")
def poll(
    run: Run,
    loop: Loop = False,
    interval: Interval = None,
    max_duration: MaxDuration = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, max=10_000, help="Queue entries taken at a time.")
    ] = None,
) -> None:
    """Process the queue: sync the external databases of the tenancies that are due, until nothing is left.

    Prints how many tenancies were synced, and how many failed.
    Exit codes: 0 done, or the fuse is off; 1 a database did not sync (it is retried later); 4 the operated database
    can't be reached; 5 it was never migrated.
    """
    from stackctl.sync import service
    from stackctl.sync.pipeline import Pipeline

    console = run.console
    log = ServiceLog(run, documents=False)
    pause = loop_interval(loop, interval, "sync.poller_interval", run)
    with stop_on_signals(max_duration, loop=loop) as stop:
        result = service.poll(
            Pipeline(run.settings),
            stop,
            claim_limit=batch_size or CLAIM_LIMIT,
            interval=pause,
            reports=service.Reports(
                polled=lambda done: report_result(run, poll_document(done), poll_line(done)),
                synced=lambda done: None if loop else warn_of_failure(console, done),
                failing=log.failing,
                recovered=log.recovered,
                trouble=log.trouble,
                regained=log.regained,
                reloaded=log.reloaded,
                warned=log.warned,
            ),
        )
    finish_stage(run, poll_document(result), poll_line(result), result.stopped_by, loop=loop, failed=result.failed > 0)


def poll_document(result: PollResult) -> dict[str, Any]:
    return asdict(result)


def poll_line(result: PollResult) -> str:
    if not (result.claimed or result.failed or result.recovered):
        return "the queue is empty"
    entries = format_count(result.claimed, "entry", "entries")
    line = f"delivered {result.delivered} of {entries} in {result.duration_ms / 1000:.2f} s"
    for name in ("failed", "recovered", "dead", "paused"):
        if number := getattr(result, name):
            line += f", {number} {name}"
    return line

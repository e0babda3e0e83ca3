"""stackctl sequence"""

from __future__ import annotations

from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.pipeline.service_log import ServiceLog
from stackctl.cli.pipeline.shared import (
    Interval,
    Loop,
    MaxDuration,
    finish_stage,
    loop_interval,
    report_result,
    sequence_document,
    sequence_line,
    stop_on_signals,
)


@command(example="stackctl sequence\nstackctl sequence --loop --max-duration 55s")
def sequence(
    run: Run,
    loop: Loop = False,
    interval: Interval = None,
    max_duration: MaxDuration = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, max=1_000_000, help="Rows of a table in one transaction."),
    ] = None,
) -> None:
    """Stamp changed rows with sequence ids and queue their tenancies, until nothing is left.

    Prints how many rows were stamped, by table.
    Exit codes: 0 done, or the fuse is off; 4 the operated database can't be reached; 5 another sequencer held the lock.
    """
    from stackctl.sync import service
    from stackctl.sync.pipeline import Pipeline

    settings = run.settings
    console = run.console
    pause = loop_interval(loop, interval, "sync.sequencer_interval", run)
    with stop_on_signals(max_duration, loop=loop) as stop, console.progress("stamping") as progress:
        result = service.sequence(
            Pipeline(settings),
            stop,
            batch_size=batch_size,
            interval=pause,
            reports=service.Reports(
                stamped=progress.advance,
                sequenced=lambda done: report_result(run, sequence_document(done), sequence_line(done)),
                trouble=lambda error: console.warn(error.message),
                reloaded=ServiceLog(run, documents=False).reloaded,
                warned=console.warn,
            ),
        )
    finish_stage(run, sequence_document(result), sequence_line(result), result.stopped_by, loop=loop)

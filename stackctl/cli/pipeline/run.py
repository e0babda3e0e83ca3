"""stackctl run"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl import __version__
from stackctl.cli.command import Run, command
from stackctl.cli.pipeline.service_log import ServiceLog
from stackctl.cli.pipeline.shared import (
    CLAIM_LIMIT,
    MaxDuration,
    database_document,
    sequence_document,
    sequence_line,
    stop_on_signals,
)
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from stackctl.sync.engine.database_sync import DatabaseResult
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.reports import Reports


@command(example="stackctl run\nstackctl run --max-duration 55s   # for a cron line")
def run_(run: Run, max_duration: MaxDuration = None) -> None:
    """Sequencer, poller and engine in one process, until a signal or --max-duration.

    Ctrl-C or SIGTERM ends it after the batch in hand, with exit code 0; a second one ends it at once.

    Prints a line for each batch that was stamped, and for each sync that sent something or failed.
    Exit codes: 0 ended by a signal or --max-duration; 4 the operated database can't be reached; 5 it was never
    migrated.
    """
    from stackctl.sync import service
    from stackctl.sync.pipeline import Pipeline

    log = ServiceLog(run, documents=True)
    pipeline = Pipeline(run.settings)
    with stop_on_signals(max_duration, loop=True) as stop:
        _start(log, pipeline)  # a mistake in a file is told before anything starts
        service.run(
            pipeline,
            stop,
            claim_limit=CLAIM_LIMIT,
            reports=list_reports(log),
        )
        log.say("end", f"stopped by {stop.reason}", {"stopped_by": stop.reason})


def list_reports(log: ServiceLog) -> Reports:
    """What the loops of a process say in its log."""
    from stackctl.sync.reports import Reports

    return Reports(
        sequenced=lambda done: log.say("sequence", sequence_line(done), sequence_document(done)),
        synced=lambda done: _report_sync(log, done),
        failing=log.failing,
        recovered=log.recovered,
        trouble=log.trouble,
        regained=log.regained,
        reloaded=log.reloaded,
        warned=log.warned,
    )


def _start(log: ServiceLog, pipeline: Pipeline) -> None:
    databases = sum(len(databases) for databases in pipeline.databases.values())
    document = {
        "version": __version__,
        "tenancies": len(pipeline.databases),
        "databases": databases,
        "mappings": list(pipeline.mappings),
        "wakeup": pipeline.settings.get("sync.wakeup"),
    }
    line = (
        f"stackctl {__version__} runs: {format_count(databases, 'external database', 'external databases')} of "
        f"{format_count(len(pipeline.databases), 'tenancy', 'tenancies')}, "
        f"{format_count(len(pipeline.mappings), 'mapping', 'mappings')}; Ctrl-C ends it after the batch in hand"
    )
    log.say("start", line, document)


def _report_sync(log: ServiceLog, result: DatabaseResult) -> None:
    """What was sent to a database, if anything was."""
    # What failed is told once, by `failing`; a batch that went through before is told all the same.
    sent = [m for m in result.mappings if m.batches]
    if sent:
        what = ", ".join(f"{m.mapping} +{m.upserted:,} -{m.deleted:,}" for m in sent)
        log.say("sync", f"{result.tenancy} {result.database}: {what}", database_document(result))

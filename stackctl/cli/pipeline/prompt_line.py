"""`status -q`: the pipeline in one line, soon, whatever hangs."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from stackctl.cli.arguments import find_tenancy
from stackctl.core.durations import format_duration
from stackctl.core.errors import ServiceError, StackctlError

if TYPE_CHECKING:
    from stackctl.cli.command import Run

DEADLINE = 2.0  # seconds


def print_prompt_line(run: Run, tenancy: str | None) -> None:
    """Print it. Raises what stands in its way, after a line that says so, too."""
    found: list[str | BaseException] = []

    def read() -> None:
        # In a thread: to look up a host's name can't be broken off.
        try:
            found.append(_read_line(run, tenancy))
        except BaseException as error:  # noqa: BLE001 - raised again, where it can be seen
            found.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    match found:
        case [str() as line]:
            run.console.line(line)
        case [StackctlError() as error]:
            run.console.line("unreachable" if isinstance(error, ServiceError) else error.code)
            raise error
        case [BaseException() as error]:
            raise error
        case _:
            error = ServiceError(f"the operated database did not answer in {DEADLINE:g} s", code="unreachable")
            run.console.line("no answer")
            run.console.error(error)
            os._exit(error.exit_code)  # what the thread holds is not waited for


def _read_line(run: Run, tenancy: str | None) -> str:
    """`ok`, or what is not as it should be, and how much is queued; external databases are not asked."""
    from stackctl.sync.queue import entries, fuses, pauses, retries

    with run.database() as conn:
        only = find_tenancy(conn, tenancy)
        state = fuses.read_fuses(conn)
        standing = pauses.list_pauses(conn)
        failing = {
            (one.tenancy, one.database): one.dead
            for one in retries.list_failures(conn)
            if only in (None, one.tenancy) and not pauses.find_pause(standing, one.tenancy, one.database, one.mapping)
        }
        queue = entries.summarize_queue(conn)
    dead = sum(failing.values())
    trouble = [f"{name} off" for name in ("sequencer", "poller") if not getattr(state, name)]
    trouble += [f"{len(failing) - dead} failing"] if len(failing) > dead else []
    trouble += [f"{dead} given up"] if dead else []
    trouble += [f"{len(standing)} paused"] if standing else []
    waiting = queue.pending + queue.in_flight + queue.stale
    oldest = f" for {format_duration(queue.oldest_age_ms / 1000)}" if queue.oldest_age_ms is not None else ""
    queued = [f"{waiting:,} queued{oldest}"] if waiting else []
    return ", ".join([*(trouble or ["ok"]), *queued])

"""stackctl fuse show"""

from __future__ import annotations

from stackctl.cli.command import Run, command
from stackctl.cli.fuse.shared import finish


@command(example="stackctl fuse show --json")
def show(run: Run) -> None:
    """Show whether each stage may work, and what is paused: by whom, since when and why.

    Prints a line for each stage, and a line for each pause.
    Exit codes: 0 printed; 4 the operated database can't be reached; 5 it was never migrated.
    """
    with run.database() as conn:
        finish(run, conn)

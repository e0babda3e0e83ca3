"""stackctl fuse"""
from __future__ import annotations
from stackctl.cli.command import Run, command, group
app = group("Switch the sequencer or the poller off and on.", example="stackctl fuse off sequencer")
apps={"fuse":app}
@command(app,"show",example="stackctl fuse show --json")
def show(run: Run) -> None:
    """Show the fuses."""
    run.finish({"a":run.settings.database_url()}, lambda: run.console.line("x"))

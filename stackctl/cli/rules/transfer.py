"""What pull and push share: their options, and how they show and end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stackctl.cli.command import Run


Tenancy = Annotated[
    str | None, typer.Option("--tenancy", metavar="TENANCY", help="The tenancy; not needed if there is only one.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the difference only.")]


def show_diff(run: Run, diff: str) -> None:
    if not run.json_output:
        run.console.diff(diff)


def finish_transfer(run: Run, diff: str, changed: bool, dry_run: bool, done: str) -> None:
    if not changed:
        run.console.line("nothing to change")
    elif dry_run:
        show_diff(run, diff)
        run.console.line("nothing was written")
    else:
        run.console.line(done)

"""stackctl demo"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.command import Run, command

if TYPE_CHECKING:
    from stackctl.demo import DemoResult, Step

app = typer.Typer(add_completion=False)
apps = {"demo": app}


@command(app, "demo", example="stackctl demo\nstackctl demo /tmp/try-it")
def demo(
    run: Run,
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="A folder for the demo.")] = Path("stackctl-demo"),
) -> None:
    """Everything end to end on an embedded PostgreSQL: migrate, seed, sync, change, sync again, compare.

    Leaves the folder with a working stackctl.yaml. Run it again and it starts afresh.
    """
    from stackctl.demo import demo as play

    console = run.console

    def tell(step: Step) -> None:
        if not run.json_output and not console.quiet:
            console.line(f"{step.title:<28}{step.outcome}  ({step.seconds:.1f} s)")

    result = play(directory.absolute(), tell)
    document = {
        "ok": result.ok,
        "directory": result.directory,
        "steps": [asdict(step) for step in result.steps],
        "checks": [
            {"tenancy": checked.tenancy, "database": checked.database} | asdict(comparison)
            for checked in result.checks
            for comparison in checked.mappings
        ],
    }
    run.finish(document, lambda: _show(run, result, directory), ok=result.ok)


def _show(run: Run, result: DemoResult, directory: Path) -> None:
    console = run.console
    for checked in result.checks:
        console.line()
        console.line(f"tenancy {checked.tenancy}  →  {checked.database} ({checked.type})", style="bold")
        console.table(
            ("mapping", "source", "target", "missing", "extra", "different"),
            [
                (c.mapping, f"{c.source_rows:,}", f"{c.target_rows:,}", c.missing, c.extra, c.different)
                for c in checked.mappings
            ],
            right=("source", "target", "missing", "extra", "different"),
        )
    console.line()
    if not result.ok:
        console.line("The two sides differ. That should never happen; please report it.", style="bold red")
        return
    console.line("Both sides are equal. What to try next:", style="bold")
    console.line(f"  cd {directory}")
    console.line("  stackctl status                  # how far each copy is behind")
    console.line("  stackctl run                     # keep syncing; Ctrl-C ends it")
    console.line("  stackctl fuse off sequencer      # and `stackctl fuse show`")
    console.line("  stackctl mappings show users     # the SQL behind a copy")
    console.line("  sqlite3 warehouse.db 'SELECT * FROM users LIMIT 5'")

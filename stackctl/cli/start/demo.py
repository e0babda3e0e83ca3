"""stackctl demo"""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.core.sentences import format_count
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.cli.start.demo_tour import DemoResult, Step


@command(example="stackctl demo\nstackctl demo /tmp/try-it")
def demo(
    run: Run,
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="A folder for the demo.")] = Path("stackctl-demo"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start afresh without asking.")] = False,
) -> None:
    """Play everything end to end on an embedded PostgreSQL: migrate, seed, sync, change, sync again, compare.

    Leaves the folder with a working stackctl.yaml, sign-up rules, a shop and a stand-in for Stripe, in which the
    examples of all help pages run. The server goes on running for half an hour after its last use. Run the demo again
    and it starts afresh; it asks first if anything was changed.

    Prints each step, then the comparison of each copy with its source.
    Exit codes: 0 all copies are equal to their source; 1 they differ; 2 the folder can't be used; 4 the server does not
    start; 5 the folder holds something else, another demo is running there, or not confirmed.
    """
    from stackctl.cli.start.demo_tour import run_demo as play

    console = run.console

    def tell(step: Step) -> None:
        if not run.json_output and not console.quiet:
            console.line(f"{step.title:<28}{step.outcome}  ({step.seconds:.1f} s)", hang=28)

    def confirm(changed: Sequence[str]) -> None:
        was = "was" if len(changed) == 1 else "were"
        run.confirm(f"In {directory}, {' and '.join(changed)} {was} changed. Start afresh, and lose that?", yes=yes)

    result = play(directory.absolute(), tell, confirm)
    document = {
        "ok": result.ok,
        "directory": result.directory,
        "steps": [asdict(step) for step in result.steps],
        "checks": [
            {
                "tenancy": one.tenancy,
                "database": one.database,
                "mapping": one.mapping,
                "source_rows": one.source_rows,
                "target_rows": one.target_rows,
                "missing": one.missing,
                "extra": one.extra,
                "different": one.different,
            }
            for checked in result.checks
            for one in checked.mappings
        ],
    }
    run.finish(document, lambda: _show(run, result, directory), ok=result.ok)


def _show(run: Run, result: DemoResult, directory: Path) -> None:
    from stackctl.cli.start.demo_tour import is_equal

    console = run.console
    for checked in result.checks:
        console.line()
        console.line(f"tenancy {checked.tenancy}", style="bold")
        if all(map(is_equal, checked.mappings)) and not console.wide:
            rows = format_count(sum(one.source_rows or 0 for one in checked.mappings), "row", "rows")
            copies = format_count(len(checked.mappings), "copy", "copies")
            console.line(f"  {checked.database} ({checked.type}): {rows} in {copies}, equal")
            continue
        console.line(f"  {checked.database} ({checked.type})")
        console.table(
            ("mapping", *(Column(name, right=True) for name in ("source", "copy", "missing", "extra", "different"))),
            [
                (c.mapping, f"{c.source_rows:,}", f"{c.target_rows:,}", c.missing, c.extra, c.different)
                for c in checked.mappings
            ],
        )
    console.line()
    if not result.ok:
        console.line("Copies differ from their source. That should never happen; please report it.", style="bold red")
        return
    console.line("All copies are equal to their source. What to try next:", style="bold")
    place = shlex.quote(str(directory))
    console.line(f"  cd -- {place}" if place.startswith("-") else f"  cd {place}", exact=True)
    if not shutil.which("stackctl"):
        console.line(f"  alias stackctl={shlex.quote(_program())}", exact=True)
    console.line("  stackctl status                  # how far each copy is behind")
    console.line("  stackctl run                     # keep syncing; Ctrl-C ends it")
    console.line("  stackctl fuse off sequencer      # and `fuse show`")
    console.line("  stackctl mappings show users     # the SQL behind a copy")
    console.line("  stackctl rules test              # sign-up rules, tried on sample users")
    console.line("  stackctl users show ada@example.com")
    console.line("  stackctl refunds list            # one is not settled: `refunds resume --all`")
    console.line("  sqlite3 warehouse.db 'SELECT * FROM users LIMIT 5'")


def _program() -> str:
    """How to call stackctl from another folder, where its virtual environment is not on the path."""
    called = Path(sys.argv[0]).absolute()
    return f"{shlex.quote(sys.executable)} -m stackctl" if called.suffix == ".py" else shlex.quote(str(called))

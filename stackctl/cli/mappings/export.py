"""stackctl mappings export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.mappings.shared import show_next_step
from stackctl.core.sentences import format_count


@command(example="stackctl mappings export --to mappings\nstackctl mappings export users teams --to mappings")
def export(
    run: Run,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder to write them into.")],
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Which mappings; default all.")] = None,
) -> None:
    """Write the mapping files that come with stackctl into a folder, to be edited.

    Prints the paths of the files.
    Exit codes: 0 written, or there already; 2 no such mapping; 5 a file is there with other contents (then nothing is
    written).
    """
    from stackctl.mapping.starter import export_mappings

    written = export_mappings(to, names or [])

    def show() -> None:
        for path in written:
            run.console.line(str(path))
        run.console.line(f"{format_count(len(written), 'file', 'files')} written")
        show_next_step(run, to)

    run.finish({"written": written}, show)

"""stackctl mappings new"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.mappings.shared import show_next_step


@command(example="stackctl mappings new active_users\nstackctl mappings new active_users --dir maps")
def new(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, and that of its table: active_users.")],
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Where; default the last of mappings_dir, or ./mappings."),
    ] = None,
) -> None:
    """Write a commented mapping file to begin with; it works as it is. Warns of others that have its name.

    Prints the file's path.
    Exit codes: 0 written; 5 the file exists.
    """
    from stackctl.core.bundled import find_bundled
    from stackctl.mapping.starter import create_mapping_file, find_namesakes

    configured, bundled = run.settings.mappings_dirs(), find_bundled("mappings")
    own = [folder for folder in configured if folder != bundled]
    folder = directory or (own[-1] if own else Path("mappings"))
    namesakes = find_namesakes([*configured, bundled, folder], name)
    path = create_mapping_file(folder, name)
    for other in namesakes:
        run.console.warn(f"{other} has that name, or fills the table of that name: only one of the two can be in use")

    def show() -> None:
        run.console.line(str(path))
        show_next_step(run, path.parent)

    run.finish({"path": path, "namesakes": namesakes}, show)

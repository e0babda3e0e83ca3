"""stackctl migrate new"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.migrate.shared import Directory, require_own_folder


@command(example="stackctl migrate new add_team_slug --dir migrations")
def new(
    run: Run,
    name: Annotated[str, typer.Argument(help="A few words: add_team_slug.")],
    directory: Directory = None,
) -> None:
    """Write an empty migration with its directives explained."""
    from stackctl.migrate.folder import create_file

    path = create_file(require_own_folder(run, directory), name, datetime.now(UTC))
    run.finish({"path": path}, lambda: run.console.line(str(path)))

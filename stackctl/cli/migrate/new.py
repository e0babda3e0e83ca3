"""stackctl migrate new"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.migrate.shared import Directory
from stackctl.core.errors import UsageError


@command(example="stackctl migrate new add_team_slug --dir migrations")
def new(
    run: Run,
    name: Annotated[str, typer.Argument(help="A few words: add_team_slug.")],
    directory: Directory = None,
) -> None:
    """Write an empty migration with its directives explained."""
    from stackctl.migrate.folder import create_file

    folder = directory or run.settings.get("migrations_dir")
    if folder is None:
        raise UsageError(
            "no folder of your own migrations is named",
            code="usage",
            hint="pass --dir DIR, or set migrations_dir in stackctl.yaml",
        )
    path = create_file(folder, name, datetime.now(UTC))
    run.finish({"path": path}, lambda: run.console.line(str(path)))

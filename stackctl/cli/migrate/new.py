"""stackctl migrate new"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.migrate.shared import Directory, Trust, require_own_folder
from stackctl.core.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@command(
    example="stackctl migrate new add_team_slug --dir db/migrations\n"
    "stackctl migrate new --revert 20260802090000 --dir db/migrations",
)
def new(
    run: Run,
    name: Annotated[str | None, typer.Argument(help="A few words: add_team_slug.", show_default=False)] = None,
    revert: Annotated[
        str | None, typer.Option("--revert", metavar="VERSION", help="Draft the reverse of this version or name.")
    ] = None,
    trust: Trust = False,
    directory: Directory = None,
) -> None:
    """Write an empty migration with its directives explained, or one that takes another back.

    With --revert the files are applied to a temporary PostgreSQL, once without that one. What is different becomes the
    draft, or what another tool's file has as its way down. What can't be reversed stands in it as a comment, and then
    `migrate up` stops at the file until you have completed it.

    Prints the path of the new file.
    Exit codes: 0 written; 2 no such migration; 3 a file does not apply; 4 the temporary PostgreSQL does not start; 5
    the file exists.
    """
    from stackctl.migrate.folder import create_file

    folder = require_own_folder(run, directory)
    if revert is not None:
        _draft(run, folder, name, revert, trust)
        return
    if name is None:
        raise UsageError(
            "a migration has a name", code="usage", hint="use a few words: stackctl migrate new add_team_slug"
        )
    path = create_file(folder, name, datetime.now(UTC))
    run.finish({"path": path}, lambda: run.console.line(str(path)))


def _draft(run: Run, folder: Path, name: str | None, revert: str, trust: bool) -> None:
    from stackctl.migrate.folder import create_file, discover
    from stackctl.migrate.revert import draft_revert

    schema = run.settings.get("database.schema")
    draft = draft_revert(discover(folder), revert, schema, trust=trust, tell=run.console.info)
    path = create_file(folder, name or f"revert {draft.name}"[:100], datetime.now(UTC), draft.text)

    def show() -> None:
        run.console.line(str(path))
        for what in draft.missing:
            run.console.warn(f"not reversed: {what}")

    run.finish({"path": path, "missing": list(draft.missing)}, show)

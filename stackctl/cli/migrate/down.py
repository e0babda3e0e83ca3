"""stackctl migrate down"""

from __future__ import annotations

from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.core.errors import UsageError


@command(
    example="stackctl migrate new --revert 20260802090000 --dir db/migrations",
    hidden=True,
    context_settings={"ignore_unknown_options": True},
)
def down(run: Run, arguments: Annotated[list[str] | None, typer.Argument(hidden=True)] = None) -> None:
    """There is no way down: `stackctl migrate new --revert VERSION` drafts the reverse as a new file.

    Prints that, and does nothing.
    Exit codes: 2 always.
    """
    raise UsageError(
        "stackctl only goes forward: what is applied is taken back by a new migration",
        code="no-way-down",
        hint="stackctl migrate new --revert VERSION writes the reverse of a migration as a draft; read it, then run up",
    )

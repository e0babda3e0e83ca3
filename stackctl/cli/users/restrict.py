"""stackctl users restrict"""

from __future__ import annotations

from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.users.shared import (
    DryRun,
    Tenancy,
    Who,
    Yes,
    change_restriction,
    find_user,
    finish_change,
    require_text,
)
from stackctl.core.errors import UsageError


@command(
    example='stackctl users restrict ada@example.com --reason "Payment disputed" --dry-run\n'
    'stackctl users restrict ada@example.com --reason "Payment disputed" \\\n    --private-details "case 4711" --yes',
)
def restrict(
    run: Run,
    who: Who,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; the user may see it.")],
    private_details: Annotated[
        str | None,
        typer.Option("--private-details", metavar="TEXT", help="For admins only; '' takes away those there are."),
    ] = None,
    tenancy: Tenancy = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Restrict a user, or change the reason of one that is restricted.

    Prints what changes.
    Exit codes: 0 restricted, or it was already; 2 no such user, or several; 4 the operated database can't be reached; 5
    not confirmed, or changed by someone else in the meantime.
    """
    require_text(reason, "--reason")
    require_text(private_details or "", "--private-details")
    if not reason.strip():
        raise UsageError("--reason is empty", code="usage", hint="say why; the user may see it")
    with run.database() as conn:
        user = find_user(conn, who, tenancy)
        wanted = user.restriction.with_reason(reason, private_details)
        word = "change the restriction of" if user.restriction.by_admin else "restrict"
        changed = change_restriction(run, conn, user, wanted, question=word, yes=yes, dry_run=dry_run)
    finish_change(run, user, wanted, changed=changed, dry_run=dry_run)

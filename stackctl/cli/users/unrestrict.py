"""stackctl users unrestrict"""

from __future__ import annotations

from stackctl.cli.command import Run, command
from stackctl.cli.users.shared import DryRun, Tenancy, Who, Yes, change_restriction, find_user, finish_change


@command(example="stackctl users unrestrict ada@example.com --yes")
def unrestrict(run: Run, who: Who, tenancy: Tenancy = None, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Lift the restriction on a user, whether set by an admin or a sign-up rule, with its reason and details.

    Prints what changes.
    Exit codes: 0 lifted, or there was none; 2 no such user, or several; 4 the operated database can't be reached; 5 not
    confirmed, or changed by someone else in the meantime.
    """
    from stackctl.backend.users import Restriction

    with run.database() as conn:
        user = find_user(conn, who, tenancy)
        changed = change_restriction(run, conn, user, Restriction(), question="unrestrict", yes=yes, dry_run=dry_run)
    finish_change(run, user, Restriction(), changed=changed, dry_run=dry_run)

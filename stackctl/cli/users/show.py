"""stackctl users show"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.users.shared import (
    Tenancy,
    Who,
    cause_document,
    describe_cause,
    find_user,
    format_yes,
    quote_text,
    restriction_document,
)
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from stackctl.backend.users import User


@command(example="stackctl users show ada@example.com\nstackctl users show ada@example.com --json")
def show(
    run: Run,
    who: Who,
    tenancy: Tenancy = None,
    show_private: Annotated[
        bool, typer.Option("--show-private", help="With the private details of a restriction.")
    ] = False,
) -> None:
    """Show who a user is, how it signed up, whether it is restricted and why, and whether the sync knows.

    Prints the user, its channels, and what restricts it.
    Exit codes: 0 printed; 2 no such user, or several; 4 the operated database can't be reached; 5 it was never
    migrated.
    """
    with run.database() as conn:
        user = find_user(conn, who, tenancy)
    run.finish({"user": _document(user, show_private)}, lambda: _show(run, user, show_private))


def _document(user: User, show_private: bool) -> dict[str, Any]:
    email = user.primary_email
    private = {"private_details": user.restriction.private_details} if show_private else {}
    causes = user.find_causes()
    return {
        "id": user.id,
        "tenancy": user.tenancy,
        "project": user.project,
        "branch": user.branch,
        "display_name": user.display_name,
        "anonymous": user.anonymous,
        "primary_email": email and email.value,
        "channels": [
            {
                "type": channel.type,
                "value": channel.value,
                "primary": channel.primary,
                "verified": channel.verified,
                "used_for_auth": channel.used_for_auth,
            }
            for channel in user.channels
        ],
        "sign_up": {
            "at": user.signed_up_at,
            "country_code": user.country_code,
            "risk_scores": {"bot": user.risk_bot, "free_trial_abuse": user.risk_free_trial_abuse},
        },
        "restricted": bool(causes),
        "causes": [cause_document(cause) for cause in causes],
        "restriction": restriction_document(user.restriction) | private,
        "triggers": [{"rule_id": one.rule_id, "action": one.action, "at": one.at} for one in user.triggers],
        "sync": {"state": "waiting" if user.sequence_id is None else "stamped", "sequence_id": user.sequence_id},
    }


def _show(run: Run, user: User, show_private: bool) -> None:
    line = run.console.line
    line(f"user        {user.id}" + (f"  {user.display_name}" if user.display_name else ""))
    line(f"tenancy     {user.tenancy}  (project {user.project}, branch {user.branch})")
    country = user.country_code or "unknown"
    line(
        f"signed up   {user.signed_up_at:%Y-%m-%d %H:%M:%S} UTC, country {country}, "
        f"risk: bot {user.risk_bot}, free_trial_abuse {user.risk_free_trial_abuse}"
    )
    line("sync        " + ("waiting for a stamp" if user.sequence_id is None else f"stamped: {user.sequence_id}"))
    causes = user.find_causes()
    line(f"restricted  {format_yes(bool(causes))}", style="bold red" if causes else None)
    for cause in causes:
        line(f"            {describe_cause(cause, user)}")
    if user.restriction.private_details is not None:
        shown = quote_text(user.restriction.private_details) if show_private else "kept back; --show-private shows them"
        line(f"            private details: {shown}")
    for one in user.triggers:
        line(f"rule        {one.rule_id}: {one.action}, {one.at:%Y-%m-%d %H:%M:%S} UTC")
    line()
    if not user.channels:
        line("no contact channel")
        return
    run.console.table(
        ("channel", "value", "primary", "verified", Column("for sign-in", spare=1)),
        [
            (
                one.type.lower(),
                one.value,
                format_yes(one.primary),
                format_yes(one.verified),
                format_yes(one.used_for_auth),
            )
            for one in user.channels
        ],
    )

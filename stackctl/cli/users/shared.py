"""What the commands of stackctl users share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.arguments import find_tenancy
from stackctl.core.errors import UsageError

if TYPE_CHECKING:
    from stackctl.backend.users import Cause, Restriction, User
    from stackctl.cli.command import Run
    from stackctl.postgres.connect import Connection

Who = Annotated[str, typer.Argument(metavar="ID_OR_EMAIL", help="Id of a user, or an e-mail address of it.")]
Tenancy = Annotated[
    str | None, typer.Option("--tenancy", metavar="TENANCY", help="Only this one, where several have the user.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")]


def find_user(conn: Connection, who: str, tenancy: str | None) -> User:
    from stackctl.backend import users

    require_text(who, "ID_OR_EMAIL")
    return users.find_user(conn, who, find_tenancy(conn, tenancy))


def change_restriction(
    run: Run, conn: Connection, user: User, wanted: Restriction, *, question: str, yes: bool, dry_run: bool
) -> bool:
    """Whether there is anything to change; what there is has been confirmed and written, unless it is a dry run."""
    from stackctl.backend import users

    if wanted == user.restriction:
        return False
    if not dry_run:
        for line in list_changes(user.restriction, wanted):
            run.console.info(line)
        run.confirm(f"{question.capitalize()} {format_user(user)}, tenancy {user.tenancy}?", yes=yes)
        users.change_restriction(conn, user, wanted)
    return True


def finish_change(run: Run, user: User, wanted: Restriction, *, changed: bool, dry_run: bool) -> None:
    document = {
        "changed": changed and not dry_run,
        "dry_run": dry_run,
        "user": user.id,
        "tenancy": user.tenancy,
        "before": restriction_document(user.restriction),
        "after": restriction_document(wanted),
        "still_restricted_by": [cause_document(cause) for cause in user.find_causes(wanted)]
        if not wanted.by_admin
        else [],
    }

    def lines() -> None:
        state = "restricted" if wanted.by_admin else "not restricted"
        if not changed:
            how = "already restricted, with this reason" if wanted.by_admin else "restricted by no admin and no rule"
            run.console.line(f"{format_user(user)} is {how}; nothing to change")
        elif dry_run:
            for line in list_changes(user.restriction, wanted):
                run.console.line(line)
            run.console.line(f"{format_user(user)} would be {state}; nothing was changed")
        else:
            run.console.line(f"{format_user(user)} is now {state}")
        if not wanted.by_admin:
            for cause in user.find_causes(wanted):
                run.console.info(f"still restricted: {describe_cause(cause, user)}")

    run.finish(document, lines)


def list_changes(before: Restriction, after: Restriction) -> list[str]:
    """The columns that change; of private details, only that they do."""
    lines = []
    if before.by_admin != after.by_admin:
        lines.append(f"restricted       {format_yes(before.by_admin)} -> {format_yes(after.by_admin)}")
    if before.reason != after.reason:
        lines.append(f"reason           {quote_text(before.reason)} -> {quote_text(after.reason)}")
    if before.private_details != after.private_details:
        old, new = ("some" if held.private_details else "none" for held in (before, after))
        lines.append(f"private details  {old} -> {new}" if old != new else "private details  replaced")
    return lines


def restriction_document(held: Restriction) -> dict[str, Any]:
    return {"by_admin": held.by_admin, "reason": held.reason, "has_private_details": held.private_details is not None}


def cause_document(cause: Cause) -> dict[str, Any]:
    rule = {"rule_id": cause.rule_id, "at": cause.at} if cause.kind == "rule" else {}
    return {"cause": cause.kind} | rule


def describe_cause(cause: Cause, user: User) -> str:
    match cause.kind:
        case "anonymous":
            return "anonymous: the user has not signed up"
        case "unverified-email":
            return "the primary e-mail address is not verified, as the tenancy requires"
        case "rule":
            at = f", {cause.at:%Y-%m-%d %H:%M:%S} UTC" if cause.at is not None else ""
            return f"by the sign-up rule {cause.rule_id or ''}{at}"
        case "admin":
            reason = user.restriction.reason
            return "by an admin" + (f": {quote_text(reason)}" if reason is not None else ", without a reason")


def format_user(user: User) -> str:
    email = user.primary_email
    return f"{email.value} ({user.id})" if email is not None else f"user {user.id}"


def format_yes(value: bool) -> str:
    return "yes" if value else "no"


def quote_text(text: str | None) -> str:
    return "none" if text is None else f'"{text}"'


def require_text(text: str, what: str) -> None:
    """UsageError for what the shell passed on though it is not text: the database could not store it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} is not valid UTF-8", code="usage") from None

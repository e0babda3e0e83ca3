"""stackctl users"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command, group, uuid_argument
from stackctl.errors import UsageError

if TYPE_CHECKING:
    from stackctl.users import Cause, Restriction, User

app = group("Show a user; restrict it, or lift that.", example="stackctl users show ada@example.com")
apps = {"users": app}

Who = Annotated[str, typer.Argument(metavar="ID_OR_EMAIL", help="Id of a user, or an e-mail address of it.")]
Tenancy = Annotated[
    str | None, typer.Option("--tenancy", metavar="TENANCY", help="Only this one, where several have the user.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")]


@command(app, "show", example="stackctl users show ada@example.com\nstackctl users show ada@example.com --json")
def show(
    run: Run,
    who: Who,
    tenancy: Tenancy = None,
    show_private: Annotated[
        bool, typer.Option("--show-private", help="With the private details of a restriction.")
    ] = False,
) -> None:
    """Show who a user is, how it signed up, whether it is restricted and why, and whether the sync knows.

    Exit codes: 0 shown, 2 no such user, or several.
    """
    with _session(run) as conn:
        user = _find(conn, who, tenancy)
    run.finish({"user": _document(user, show_private)}, lambda: _show(run, user, show_private))


@command(
    app,
    "restrict",
    example='stackctl users restrict ada@example.com --reason "Payment disputed" --dry-run\n'
    'stackctl users restrict ada@example.com --reason "Payment disputed" --private-details "case 4711" --yes',
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

    Exit codes: 0 restricted, or it was already; 2 no such user, or several; 5 not confirmed, or changed by somebody
    else meanwhile.
    """
    _printable_text(reason, "--reason")
    _printable_text(private_details or "", "--private-details")
    if not reason.strip():
        raise UsageError("--reason is empty", code="usage", hint="say why; the user may see it")
    with _session(run) as conn:
        user = _find(conn, who, tenancy)
        wanted = user.restriction.restricted(reason, private_details)
        word = "change the restriction of" if user.restriction.by_admin else "restrict"
        changed = _change(run, conn, user, wanted, question=word, yes=yes, dry_run=dry_run)
    _finish(run, user, wanted, changed=changed, dry_run=dry_run)


@command(app, "unrestrict", example="stackctl users unrestrict ada@example.com --yes")
def unrestrict(run: Run, who: Who, tenancy: Tenancy = None, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Lift the restriction on a user, whether an admin or a sign-up rule set it; reason and details go with it.

    Exit codes: 0 lifted, or there was none; 2 no such user, or several; 5 not confirmed, or changed by somebody else
    meanwhile.
    """
    from stackctl.users import Restriction

    with _session(run) as conn:
        user = _find(conn, who, tenancy)
        changed = _change(run, conn, user, Restriction(), question="unrestrict", yes=yes, dry_run=dry_run)
    _finish(run, user, Restriction(), changed=changed, dry_run=dry_run)


def _session(run: Run) -> Any:
    from stackctl.sync.pipeline import Pipeline

    return Pipeline(run.settings).session()


def _find(conn: Any, who: str, tenancy: str | None) -> User:
    from stackctl import users

    _printable_text(who, "ID_OR_EMAIL")
    return users.find(conn, who, uuid_argument(tenancy) if tenancy is not None else None)


def _change(run: Run, conn: Any, user: User, wanted: Restriction, *, question: str, yes: bool, dry_run: bool) -> bool:
    """Whether there is anything to change; what there is has been confirmed and written, unless it is a dry run."""
    from stackctl import users

    if wanted == user.restriction:
        return False
    if not dry_run:
        for line in _difference(user.restriction, wanted):
            run.console.info(line)
        run.confirm(f"{question.capitalize()} {_name(user)}, tenancy {user.tenancy}?", yes=yes)
        users.change(conn, user, wanted)
    return True


def _finish(run: Run, user: User, wanted: Restriction, *, changed: bool, dry_run: bool) -> None:
    document = {
        "changed": changed and not dry_run,
        "dry_run": dry_run,
        "user": user.id,
        "tenancy": user.tenancy,
        "before": _restriction(user.restriction),
        "after": _restriction(wanted),
        "still_restricted_by": [_cause(cause) for cause in user.causes(wanted)] if not wanted.by_admin else [],
    }

    def lines() -> None:
        state = "restricted" if wanted.by_admin else "not restricted"
        if not changed:
            how = "already restricted, with this reason" if wanted.by_admin else "restricted by no admin and no rule"
            run.console.line(f"{_name(user)} is {how}; nothing to change")
        elif dry_run:
            for line in _difference(user.restriction, wanted):
                run.console.line(line)
            run.console.line(f"{_name(user)} would be {state}; nothing was changed")
        else:
            run.console.line(f"{_name(user)} is now {state}")
        if not wanted.by_admin:
            for cause in user.causes(wanted):
                run.console.info(f"still restricted: {_why(cause, user)}")

    run.finish(document, lines)


def _difference(before: Restriction, after: Restriction) -> list[str]:
    """The columns that change; of private details, only that they do."""
    lines = []
    if before.by_admin != after.by_admin:
        lines.append(f"restricted       {_yes(before.by_admin)} -> {_yes(after.by_admin)}")
    if before.reason != after.reason:
        lines.append(f"reason           {_quoted(before.reason)} -> {_quoted(after.reason)}")
    if before.private_details != after.private_details:
        old, new = ("some" if held.private_details else "none" for held in (before, after))
        lines.append(f"private details  {old} -> {new}" if old != new else "private details  replaced")
    return lines


def _document(user: User, show_private: bool) -> dict[str, Any]:
    email = user.primary_email
    private = {"private_details": user.restriction.private_details} if show_private else {}
    causes = user.causes()
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
        "causes": [_cause(cause) for cause in causes],
        "restriction": _restriction(user.restriction) | private,
        "triggers": [{"rule_id": one.rule_id, "action": one.action, "at": one.at} for one in user.triggers],
        "sync": {"state": "waiting" if user.sequence_id is None else "stamped", "sequence_id": user.sequence_id},
    }


def _restriction(held: Restriction) -> dict[str, Any]:
    return {"by_admin": held.by_admin, "reason": held.reason, "has_private_details": held.private_details is not None}


def _cause(cause: Cause) -> dict[str, Any]:
    rule = {"rule_id": cause.rule_id, "at": cause.at} if cause.kind == "rule" else {}
    return {"cause": cause.kind} | rule


def _show(run: Run, user: User, show_private: bool) -> None:
    line = run.console.line
    line(f"user        {user.id}" + (f"  {_plain(user.display_name)}" if user.display_name else ""))
    line(f"tenancy     {user.tenancy}  (project {user.project}, branch {user.branch})")
    line(
        f"signed up   {user.signed_up_at:%Y-%m-%d %H:%M:%S} UTC, country {_plain(user.country_code or 'unknown')}, "
        f"risk: bot {user.risk_bot}, free_trial_abuse {user.risk_free_trial_abuse}"
    )
    line("sync        " + ("waiting for a stamp" if user.sequence_id is None else f"stamped: {user.sequence_id}"))
    causes = user.causes()
    line(f"restricted  {_yes(bool(causes))}", style="bold red" if causes else None)
    for cause in causes:
        line(f"            {_why(cause, user)}")
    if user.restriction.private_details is not None:
        shown = _quoted(user.restriction.private_details) if show_private else "kept back; --show-private shows them"
        line(f"            private details: {shown}")
    for one in user.triggers:
        line(f"rule        {_plain(one.rule_id)}: {one.action}, {one.at:%Y-%m-%d %H:%M:%S} UTC")
    line()
    if not user.channels:
        line("no contact channel")
        return
    run.console.table(
        ("channel", "value", "primary", "verified", "for sign-in"),
        [
            (one.type.lower(), _plain(one.value), _yes(one.primary), _yes(one.verified), _yes(one.used_for_auth))
            for one in user.channels
        ],
    )


def _why(cause: Cause, user: User) -> str:
    match cause.kind:
        case "anonymous":
            return "anonymous: the user has not signed up"
        case "unverified-email":
            return "the primary e-mail address is not verified, as the tenancy requires"
        case "rule":
            at = f", {cause.at:%Y-%m-%d %H:%M:%S} UTC" if cause.at is not None else ""
            return f"by the sign-up rule {_plain(cause.rule_id or '')}{at}"
        case "admin":
            reason = user.restriction.reason
            return "by an admin" + (f": {_quoted(reason)}" if reason is not None else ", without a reason")


def _name(user: User) -> str:
    email = user.primary_email
    return f"{_plain(email.value)} ({user.id})" if email is not None else f"user {user.id}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _quoted(text: str | None) -> str:
    return "none" if text is None else f'"{_plain(text)}"'


def _plain(text: str) -> str:
    """What users and others chose must not steer the terminal."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _printable_text(text: str, what: str) -> None:
    """UsageError for what the shell passed on though it is not text: the database could not store it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} is not valid UTF-8", code="usage") from None

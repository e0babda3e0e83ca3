"""stackctl rules backtest"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.arguments import find_tenancy, parse_time_option
from stackctl.cli.command import Run, command
from stackctl.cli.rules.rules_file import RulesPath, rules_path
from stackctl.core.documents import to_csv
from stackctl.core.errors import UsageError
from stackctl.core.sentences import format_count
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from collections import Counter

    from stackctl.rules.model import RuleSet
    from stackctl.rules.stored.backtest import Report

_COUNTS = ("matched", "decided", "restricted", "error", "unknown")
_COLUMNS = ("tenancy", "id", "email", "decision", "rule", "signed_up_at", "verified", "last_active_at", "paid")
_FACTS = ("verified", "active", "paying")
_WORDS = {
    "newly_rejected": "newly rejected",
    "newly_allowed": "newly allowed",
    "newly_restricted": "newly restricted",
    "no_longer_restricted": "no longer restricted",
}


@command(
    example="stackctl rules backtest --since 2026-01-01\n"
    "stackctl rules backtest --against new-rules.yaml --auth-method password --json\n"
    "stackctl rules backtest --csv affected.csv --show-emails",
)
def backtest(
    run: Run,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Signed up since; a time, or e.g. 30d.")
    ] = None,
    tenancy: Annotated[str | None, typer.Option("--tenancy", metavar="TENANCY", help="Only its users.")] = None,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, metavar="N", help="At most so many users, the same ones each time.")
    ] = None,
    auth_method: Annotated[
        str | None,
        typer.Option("--auth-method", metavar="METHOD", help="Of users whose method the database does not record."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="FILE", help="Other rules: show who would be treated differently."),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write who would be rejected or restricted, a row each."),
    ] = None,
    show_emails: Annotated[bool, typer.Option("--show-emails", help="Show addresses in full.")] = False,
    rules: RulesPath = None,
) -> None:
    """Show what the rules would have done to the users who are in the database. Nothing is written.

    Anonymous users are left out. Where the database does not tell how a user signed up, rules that depend on it are
    unknown for that user, unless --auth-method says.

    False positives are users who would be rejected, although they have verified an address, were seen a day after
    they signed up or later, or have paid.

    Prints a row for each rule: how many users it matches, decides about and restricts; then the false positives. With
    --json also by week.
    Exit codes: 0 printed; 3 a rules file is bad; 4 the operated database can't be reached; 5 it was never migrated.
    """
    from stackctl.rules.model import AUTH_METHODS
    from stackctl.rules.rules_file import load_rules
    from stackctl.rules.stored import backtest as backtests

    if auth_method is not None and auth_method not in AUTH_METHODS:
        raise UsageError(f"--auth-method: {auth_method!r} is none of {', '.join(AUTH_METHODS)}", code="usage")
    if csv is not None and (csv.is_dir() or not csv.resolve().parent.is_dir()):
        raise UsageError(f"--csv: {csv} can't be written", code="usage", hint="name a file in a folder that is there")
    start = parse_time_option(since, "--since")
    own = load_rules(rules_path(run, rules))
    other = load_rules(against) if against else None
    with run.database() as conn:
        scope = backtests.Scope(
            since=start, tenancy=find_tenancy(conn, tenancy), sample=sample, auth_method=auth_method
        )
        report = backtests.backtest(
            conn, own, scope, other, lambda label, total: run.console.progress(label, total, "users"),
            list_affected=csv is not None,
        )  # fmt: skip
    if csv is not None:
        _write_csv(csv, report, show_emails)
    run.finish(_document(report, own, other, show_emails), lambda: _show(run, report, own, other, show_emails))


def _write_csv(path: Path, report: Report, show_emails: bool) -> None:
    from stackctl.core.files import replace_file

    rows = (
        (one.tenancy, one.user, one.email if show_emails else mask_email(one.email), one.decision, one.rule,
         one.signed_up_at, one.verified, one.last_active_at, one.paid)
        for one in report.affected
    )  # fmt: skip
    try:
        replace_file(path, to_csv(_COLUMNS, rows, exact=("rule",)).encode("utf-8"))
    except OSError as error:
        raise UsageError(f"--csv: {path} can't be written: {error.strerror}", code="usage") from error


def _document(report: Report, rules: RuleSet, against: RuleSet | None, show_emails: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "users": report.users,
        "unknown_auth_method": report.unknown_method,
        "judged_in_python": report.in_python,
        "rules": [
            {"rule_id": rule.id, "enabled": rule.enabled, "action": rule.action.type}
            | {{"error": "errors"}.get(kind, kind): report.by_rule[rule.id, kind] for kind in _COUNTS}
            for rule in rules.ordered
        ],
        "outcomes": {
            name: report.outcomes[name]
            for name in ("allow", "reject", "default-allow", "default-reject", "restricted", "unknown")
        },
        "false_positives": _count_false_positives(report.all_weeks()),
        "weeks": [
            {"week": week}
            | {name: counts[name] for name in ("users", "rejected", "restricted")}
            | {"false_positives": _count_false_positives(counts)}
            for week, counts in sorted(report.weeks.items())
        ],
    }
    if against is not None:
        document["against"] = {
            name: {
                "users": report.changes[name],
                "examples": [
                    {
                        "tenancy": one.tenancy,
                        "user": one.user,
                        "email": one.email if show_emails else mask_email(one.email),
                    }
                    for one in report.examples
                    if one.change == name
                ],
            }
            for name in _WORDS
        }
    return document


def _count_false_positives(counts: Counter[str]) -> dict[str, int]:
    return {"users": counts["false_positives"]} | {name: counts[name] for name in _FACTS}


def _show(run: Run, report: Report, rules: RuleSet, against: RuleSet | None, show_emails: bool) -> None:
    console = run.console
    rows = [
        (rule.id, rule.action.type if rule.enabled else "off", *(report.by_rule[rule.id, kind] for kind in _COUNTS))
        for rule in rules.ordered
    ]
    if rows:
        console.table(
            (
                "rule",
                Column("action", spare=2),
                Column("matched", right=True),
                Column("decided", right=True),
                Column("restricted", right=True),
                Column("errors", right=True, spare=3),
                Column("unknown", right=True, spare=1),
            ),
            rows,
        )
        console.line()
    names = [name for name in report.outcomes if report.outcomes[name]]
    shown = ", ".join(f"{report.outcomes[name]:,} {name}" for name in sorted(names))
    console.line(f"{format_count(report.users, 'user', 'users')}" + (f": {shown}" if shown else ""))
    whole = report.all_weeks()
    if whole["rejected"]:
        facts = ", ".join(f"{whole[name]:,} {name}" for name in _FACTS if whole[name])
        share = f"{whole['false_positives']:,} of {whole['rejected']:,} rejected"
        console.line(f"false positives: {share}" + (f" ({facts})" if facts else ""))
    if report.unknown_method:
        users = format_count(report.unknown_method, "user", "users")
        console.line(f"the database does not tell how {users} signed up; --auth-method METHOD sets it")
    if against is None:
        return
    for name, words in _WORDS.items():
        console.line()
        console.line(f"{words}: {format_count(report.changes[name], 'user', 'users')}", "bold")
        for one in report.examples:
            if one.change == name:
                console.line(f"  {one.user}  {one.email if show_emails else mask_email(one.email)}")


def mask_email(email: str) -> str:
    """`a***@example.com`."""
    local, at, domain = email.strip().rpartition("@")
    return f"{local[:1]}***@{domain}" if at else (f"{domain[:1]}***" if domain else "")

"""stackctl rules eval"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.rules.decisions import format_cel, format_outcome
from stackctl.cli.rules.rules_file import RulesPath, load_rules
from stackctl.core.errors import UsageError
from stackctl.core.sentences import format_count
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.core.console import Console
    from stackctl.rules.decide import Decision, Judge

_RISK = "NAME=0..100"


@command(
    example="stackctl rules eval --email bob@tempmail.com --country-code DE --risk bot=80\n"
    "stackctl rules eval --auth-method oauth --oauth-provider github --json\n"
    "stackctl rules eval --users users.csv\n"
    "stackctl rules eval --user ada@example.com",
)
def eval_(
    run: Run,
    email: Annotated[
        str | None, typer.Option("--email", metavar="ADDRESS", help="Leave it out for a user without one.")
    ] = None,
    auth_method: Annotated[
        str | None,
        typer.Option("--auth-method", metavar="METHOD", help="password (the default), otp, oauth or passkey."),
    ] = None,
    oauth_provider: Annotated[
        str | None, typer.Option("--oauth-provider", metavar="ID", help="With --auth-method oauth.")
    ] = None,
    country_code: Annotated[str | None, typer.Option("--country-code", metavar="XX", help="Two letters.")] = None,
    risk: Annotated[
        list[str] | None, typer.Option("--risk", metavar=_RISK, help="bot or free_trial_abuse; repeatable.")
    ] = None,
    users: Annotated[
        Path | None, typer.Option("--users", metavar="FILE", help="Many sample users: .csv, .tsv, .jsonl or .yaml.")
    ] = None,
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="ID_OR_EMAIL", help="A user of the database, as it was at its sign-up."),
    ] = None,
    tenancy: Annotated[
        str | None, typer.Option("--tenancy", metavar="TENANCY", help="With --user: where several have the user.")
    ] = None,
    rules: RulesPath = None,
) -> None:
    """Show what the rules decide about a sample user, and why; or about every user of a file, or a user that is there.

    A CSV has the columns email and auth_method, and may have oauth_provider, country_code, bot, free_trial_abuse.
    Of most users, the database does not tell how they signed up: where the decision depends on it, each way is named,
    and --auth-method says which is shown.

    Prints the user as the rules see it, each rule's answer, and the decision.
    Exit codes: 0 evaluated, whatever the decision; 2 no such user can be, or is there; 3 a file is bad; 4 the operated
    database can't be reached; 5 it was never migrated.
    """
    from stackctl.rules.decide import Judge
    from stackctl.rules.model import Context

    described = [email, oauth_provider, country_code, risk]
    if user is not None and any(value is not None for value in (*described, users)):
        hint = "what the database does not tell is --auth-method"
        raise UsageError("--user takes address, country and scores from the database", code="usage", hint=hint)
    if tenancy is not None and user is None:
        raise UsageError("--tenancy goes with --user", code="usage")
    if users is not None and any(value is not None for value in (*described, auth_method)):
        raise UsageError("--users takes everything from the file", code="usage")
    judge = Judge(load_rules(run, rules))
    if users is not None:
        _many(run, judge, users)
        return
    if user is not None:
        _stored(run, judge, user, tenancy, auth_method)
        return
    try:
        context = Context.from_user(
            email=email,
            auth_method=auth_method or "password",
            oauth_provider=oauth_provider,
            country_code=country_code,
            risk_scores=_risks(risk or []),
        )
    except ValueError as error:
        raise UsageError(str(error), code="usage") from None
    decision = judge.decide(context)
    run.finish(_document(decision), lambda: _show(run.console, decision))


def _document(decision: Decision) -> dict[str, Any]:
    """A decision as JSON, by the names that the backend uses."""
    from stackctl.core.documents import Exact

    return {
        "context": decision.context.fields(),
        "evaluations": [
            {
                "rule_id": evaluation.rule.id,
                "display_name": evaluation.rule.display_name,
                "enabled": evaluation.rule.enabled,
                "condition": Exact(evaluation.rule.condition),
                "status": evaluation.status,
                "action": evaluation.action,
            }
            | ({"error": evaluation.error} if evaluation.error else {})
            for evaluation in decision.evaluations
        ],
        "outcome": {
            "should_allow": decision.should_allow,
            "decision": decision.outcome,
            "decision_rule_id": decision.decided_by,
            "restricted_because_of_rule_id": decision.restricted_by,
        },
    }


def _risks(given: Sequence[str]) -> dict[str, int]:
    from stackctl.rules.sample_users import parse_score

    found: dict[str, int] = {}
    for text in given:
        name, _, score = text.partition("=")
        if name in found:
            raise UsageError(f"--risk {name} is given twice", code="usage")
        try:
            found[name] = parse_score(score)
        except ValueError as error:
            raise UsageError(f"--risk {name[:40]}: {error}", code="usage", hint="e.g. --risk bot=80") from None
    return found


def _show(console: Console, decision: Decision) -> None:
    from stackctl.rules.cel.trace import trace_condition

    fields = decision.context.fields()
    risks = fields.pop("riskScores")
    for name, value in {**fields, **{f"riskScores.{risk}": score for risk, score in risks.items()}}.items():
        console.line(f"{name:<28}{value!r}" if isinstance(value, str) else f"{name:<28}{value}")
    console.line()
    styles = {"matched": "bold", "error": "red"}
    for evaluation in decision.evaluations:
        what = f"{evaluation.status.replace('_', ' ')}" + (
            f" ({evaluation.action})" if evaluation.status == "matched" else ""
        )
        console.line(f"{evaluation.rule.id}: {what}", styles.get(evaluation.status))
        if evaluation.error:
            console.line(f"  {evaluation.error}")
        if evaluation.status in ("matched", "not_matched", "error"):
            for part in trace_condition(evaluation.rule, decision.context):
                seen = ", ".join(f"{name} = {value!r}" for name, value in part.fields.items())
                value = f"error: {part.error}" if part.error else format_cel(part.value)
                console.line(f"  {part.text} → {value}" + (f"   ({seen})" if seen else ""), exact=True)
    console.line()
    console.line(format_outcome(decision), "green" if decision.should_allow else "red")


def _stored(run: Run, judge: Judge, who: str, tenancy: str | None, auth_method: str | None) -> None:
    from stackctl.cli.users.shared import find_user, format_user
    from stackctl.rules.model import AUTH_METHODS
    from stackctl.rules.stored.user import list_contexts

    if auth_method is not None and auth_method not in AUTH_METHODS:
        raise UsageError(f"--auth-method: {auth_method!r} is none of {', '.join(AUTH_METHODS)}", code="usage")
    with run.database() as conn:
        found = find_user(conn, who, tenancy)
        decisions = [judge.decide(context) for context in list_contexts(conn, found, auth_method)]
    outcomes = {(one.outcome, one.decided_by, one.restricted_by) for one in decisions}
    ways = decisions if len(outcomes) > 1 else []
    document = {
        "user": {"id": found.id, "tenancy": found.tenancy, "anonymous": found.anonymous, "at": found.signed_up_at},
        "by_auth_method": {one.context.auth_method: _document(one)["outcome"] for one in ways},
        **_document(decisions[0]),
    }

    def show() -> None:
        run.console.line(f"{format_user(found)}, tenancy {found.tenancy}")
        _show(run.console, decisions[0])
        for one in ways:
            run.console.line(f"{one.context.auth_method}: {format_outcome(one)}")
        if ways:
            run.console.warn("the database does not tell how the user signed up, and the decision depends on it")
        if found.anonymous:
            run.console.warn("the user is anonymous: the rules are asked when it becomes a regular one")

    run.finish(document, show)


def _many(run: Run, judge: Judge, path: Path) -> None:
    from collections import Counter

    from stackctl.rules.sample_users import load_users

    counts: Counter[str] = Counter()
    results: list[tuple[int, Decision]] = []
    for person in load_users(path, run.console.warn):
        decision = judge.decide(person.context)
        counts[decision.outcome] += 1
        counts["restricted"] += decision.should_allow and decision.restricted_by is not None
        results.append((person.place, decision))
    summary = {name: counts[name] for name in ("allow", "reject", "default-allow", "default-reject", "restricted")}
    rows = [(place, d.context.email, d.outcome, d.decided_by, d.restricted_by) for place, d in results]
    listed = [
        {"row": place, "email": email, "decision": outcome, "rule": rule, "restricted_by": restricted}
        for place, email, outcome, rule, restricted in rows
    ]

    def show() -> None:
        run.console.table(
            (Column("row", right=True, spare=2), "email", "decision", "rule", Column("restricted by", spare=1)), rows
        )
        run.console.line()
        shown = ", ".join(f"{number:,} {name}" for name, number in summary.items() if number)
        run.console.line(f"{format_count(len(rows), 'user', 'users')}" + (f": {shown}" if shown else ""))

    run.finish({"users": listed, "summary": summary}, show)

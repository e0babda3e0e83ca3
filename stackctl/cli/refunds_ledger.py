"""stackctl refunds list, show, resume"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.command import Run, command, counted, text_option, time_option, uuid_argument
from stackctl.cli.payments_common import ApiBase, ApiKey, stripe
from stackctl.cli.refunds import UNSETTLED, app, document, finish, told
from stackctl.errors import ConfigError, ServiceError, StackctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from stackctl.db import Connection
    from stackctl.payments.gateway import Gateway
    from stackctl.payments.ledger import Refund
    from stackctl.payments.reconcile import Difference
    from stackctl.payments.refunds import Outcome


class StatusName(Enum):
    planned = "planned"
    submitted = "submitted"
    pending = "pending"
    succeeded = "succeeded"
    failed = "failed"
    canceled = "canceled"


Tenancy = Annotated[str | None, typer.Option("--tenancy", metavar="TENANCY", help="Only this tenancy's.")]
RefundId = Annotated[str, typer.Argument(metavar="REFUND", help="The id that create printed.")]
_COLOURS = {"succeeded": "green", "failed": "red", "canceled": "red"}


@command(
    app,
    "list",
    example="stackctl refunds list --since 24h\nstackctl refunds list --status submitted --json\n"
    "stackctl refunds list --reconcile --since 720h",
)
def list_(
    run: Run,
    tenancy: Tenancy = None,
    customer: Annotated[str | None, typer.Option("--customer", metavar="ID", help="Only this customer's.")] = None,
    status: Annotated[StatusName | None, typer.Option("--status", help="Only of this status.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Asked for since; a time, or e.g. 24h.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Asked for before; a time, or e.g. 1h.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="At most so many, the newest.")] = 100,
    reconcile: Annotated[bool, typer.Option("--reconcile", help="Name every difference from Stripe.")] = False,
    stripe_api_key: ApiKey = None,
    stripe_api_base: ApiBase = None,
) -> None:
    """List the refunds of the ledger, the newest first; with --reconcile, compare the ledger with Stripe.

    Exit codes: 0 listed, nothing differs; 1 ledger and Stripe differ; 4 Stripe can't be reached or refuses the key, for
    one of the accounts at least.
    """
    from stackctl.payments import ledger
    from stackctl.sync.pipeline import Pipeline

    only, customer = uuid_argument(tenancy) if tenancy else None, text_option(customer, "--customer")
    start, end = time_option(since, "--since"), time_option(until, "--until")
    opened = stripe(run, stripe_api_key, stripe_api_base)
    if reconcile and (customer or status or until):
        raise UsageError("--reconcile goes with --tenancy and --since only", code="usage")
    with Pipeline(run.settings).session() as conn:
        if reconcile:
            _reconcile(run, conn, opened, only, start)
            return
        found = ledger.find(conn, tenancy=only, customer=customer, status=status.value if status else None,
                            since=start, until=end, limit=limit + 1)  # fmt: skip
    more, found = len(found) > limit, found[:limit]

    def show() -> None:
        _table(run, found)
        if not found:
            run.console.line("no refunds")
        if more:
            run.console.line(f"the newest {limit}; --limit shows more")

    run.finish({"refunds": [document(one) for one in found], "more": more}, show)


def _table(run: Run, refunds: Sequence[Refund]) -> None:
    from stackctl.payments.money import shown

    rows = [
        (
            str(one.id),
            f"{one.created_at:%Y-%m-%d %H:%M}",
            shown(one.amount, one.currency),
            one.status if one.is_settled or one.status != "succeeded" else "succeeded, quantity not lowered",
            one.customer,
        )
        for one in refunds
    ]
    if rows:
        columns = ("refund", "asked (UTC)", "amount", "status", "customer")
        run.console.table(columns, rows, right=("amount",), whole=("refund", "amount"))


def _reconcile(
    run: Run, conn: Connection, opened: Callable[[str], Gateway], tenancy: UUID | None, since: datetime | None
) -> None:
    from stackctl.payments import connection, ledger
    from stackctl.payments.reconcile import compare

    differences: list[tuple[str, Difference]] = []
    compared = skipped = 0
    accounts, problems = connection.accounts(conn, tenancy), dict[str, ServiceError]()
    for account in accounts:
        gateway = opened(account)
        try:
            made = gateway.refunds_since(since)
            known = ledger.find(conn, account=account)
            own = [one for one in known if one.livemode == (gateway.mode == "live")]
            found = compare(gateway, made, own, since)
        except ServiceError as error:  # of one that was disconnected, say: the others are compared all the same
            problems[account] = error
            continue
        skipped += len(known) - len(own)
        compared += sum(since is None or one.created_at >= since for one in own)
        differences += [(account, one) for one in found]
    if problems and len(problems) == len(accounts):
        raise next(iter(problems.values()))
    for account, problem in problems.items():
        run.console.warn(f"account {account} could not be compared: {problem.message}")
    if skipped:
        run.console.warn(f"{counted(skipped, 'refund', 'refunds')} of the key's other mode could not be compared")

    def show() -> None:
        rows = [(one.kind, str(one.refund or ""), one.stripe_refund or "", one.message) for _, one in differences]
        if rows:
            run.console.table(("difference", "refund", "in Stripe", ""), rows)
        elif compared:
            run.console.line(f"ledger and Stripe agree: {counted(compared, 'refund', 'refunds')} compared", "green")
        else:
            run.console.line("neither the ledger nor Stripe has a refund")

    listed = [
        {
            "account": account,
            "kind": one.kind,
            "refund": one.refund,
            "stripe_refund_id": one.stripe_refund,
            "message": one.message,
        }
        for account, one in differences
    ]
    ok = not differences and not problems
    result = {"ok": ok, "compared": compared, "skipped": skipped, "not_compared": list(problems), "differences": listed}
    run.finish(result, show, ok=ok, exit_code=1 if differences else ServiceError.exit_code)


@command(app, "show", example="stackctl refunds show 7c9e6679-7425-40de-944b-e07fc1f90ae7")
def show(run: Run, refund: RefundId) -> None:
    """Show one refund as the ledger has it. Stripe is not asked; `resume` does that.

    Exit codes: 0 shown; 2 no such refund.
    """
    from stackctl.payments import ledger
    from stackctl.payments.money import shown
    from stackctl.sync.pipeline import Pipeline

    with Pipeline(run.settings).session() as conn:
        one = ledger.get(conn, uuid_argument(refund, "refund"))
    taken = f", {one.quantity} revoked" if one.quantity else ""
    facts = {
        "refund": str(one.id),
        "status": one.status,
        "amount": shown(one.amount, one.currency) + taken,
        "purchase": f"{one.purchase_id} ({one.purchase_type})",
        "customer": one.customer,
        "tenancy": str(one.tenancy),
        "payment": one.intent + (f", invoice {one.invoice}" if one.invoice else ""),
        "in Stripe": one.stripe_refund,
        "failure": one.failure,
        "reason": one.params.get("reason"),
        "note": one.note,
        "request": one.request_id,
        "asked": f"{one.created_at:%Y-%m-%d %H:%M:%S} UTC by {one.created_by}",
        "sent": f"{one.submitted_at:%Y-%m-%d %H:%M:%S} UTC" if one.submitted_at else None,
    }

    def lines() -> None:
        for name, value in facts.items():
            if value is not None:
                run.console.line(f"{name:<10}{value}", _COLOURS.get(one.status) if name == "status" else None)
        if not one.is_settled:
            run.console.line(f"\nnot settled: stackctl refunds resume {one.id}", "yellow")

    run.finish({"refund": document(one)}, lines)


@command(
    app,
    "resume",
    example="stackctl refunds resume 7c9e6679-7425-40de-944b-e07fc1f90ae7\nstackctl refunds resume --all",
)
def resume(
    run: Run,
    refund: Annotated[str | None, typer.Argument(metavar="REFUND", help="Or --all.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every refund that is not settled.")] = False,
    give_up: Annotated[
        bool,
        typer.Option(
            "--give-up", help="Free the money of one too old to be sent again; leave a quantity that can't be lowered."
        ),
    ] = False,
    tenancy: Tenancy = None,
    stripe_api_key: ApiKey = None,
    stripe_api_base: ApiBase = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --give-up: do not ask.")] = False,
) -> None:
    """Find out what became of refunds whose outcome is not known, and finish them. Safe to run from cron.

    One that Stripe has is taken over from there; one that it does not have is sent again, under its own key, for 23
    hours. What was planned and not sent is sent, or after 23 hours canceled.

    Exit codes: 0 settled, or nothing to settle; 2 no such refund; 4 Stripe can't be reached or refuses the key; 5 the
    refund failed; 6 the outcome is still unknown or not final.
    """
    from stackctl.payments import ledger, refunds
    from stackctl.sync.pipeline import Pipeline

    if (refund is None) != everything:
        raise UsageError("name one refund, or --all for all that are not settled", code="usage")
    opened = stripe(run, stripe_api_key, stripe_api_base)
    if give_up and everything:
        raise UsageError("--give-up takes one refund, not --all", code="usage")
    with Pipeline(run.settings).session() as conn:
        if refund is None:
            _resume_all(run, conn, opened, uuid_argument(tenancy) if tenancy else None)
            return
        one = ledger.get(conn, uuid_argument(refund, "refund"))
        if give_up:
            what = (
                "leave its subscription as it is" if one.status == "succeeded" else "free its money to be refunded anew"
            )
            run.confirm(f"Give up refund {one.id}, and {what}?", yes=yes)
        work = refunds.cancel if give_up else refunds.settle
        finish(run, told(run, one, lambda: work(conn, opened(one.account), one)))


def _resume_all(run: Run, conn: Connection, opened: Callable[[str], Gateway], tenancy: UUID | None) -> None:
    from stackctl.db import translated
    from stackctl.payments import ledger, refunds

    found = ledger.find(conn, tenancy=tenancy, unsettled=True)[::-1]  # in the order in which they were asked for
    outcomes: list[Outcome] = []
    for one in found:
        try:
            with translated("the operated database"):
                outcome = told(run, one, lambda one=one: refunds.settle(conn, opened(one.account), one))
        except ConfigError:
            raise  # no key: not this refund's problem
        except StackctlError as error:
            outcome = refunds.Outcome(ledger.get(conn, one.id), error)
        outcomes.append(outcome)
        if outcome.problem is not None:
            run.console.warn(f"refund {one.id}: {outcome.problem.message}")
    left = [one for one in outcomes if not one.refund.is_settled]
    problems = [one.problem for one in left if isinstance(one.problem, ServiceError)]
    if problems and len(left) == len(outcomes):
        raise problems[0]

    def show() -> None:
        _table(run, [one.refund for one in outcomes])
        settled = len(outcomes) - len(left)
        if outcomes:
            run.console.line(f"{settled} settled, {len(left)} not yet", "yellow" if left else "green")
        else:
            run.console.line("nothing to settle")

    result = {"refunds": [document(one.refund) for one in outcomes], "settled": len(outcomes) - len(left),
              "left": len(left)}  # fmt: skip
    run.finish(result, show, ok=not left, exit_code=UNSETTLED)

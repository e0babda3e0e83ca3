"""stackctl refunds resume"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.arguments import find_tenancy
from stackctl.cli.command import Run, command
from stackctl.cli.refunds.shared import (
    REFUSED,
    UNSETTLED,
    TenancyFilter,
    describe_failure,
    find_refund,
    finish_outcome,
    refund_document,
    refunds_table,
    run_naming_refund,
)
from stackctl.cli.stripe_options import StripeApiBase, StripeApiKey, prepare_gateway
from stackctl.core.errors import ServiceError, StackctlError, UsageError
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from stackctl.payments.gateway import Gateway
    from stackctl.payments.refunds.execute import Outcome
    from stackctl.payments.refunds.ledger import Refund
    from stackctl.postgres.connect import Connection


@command(
    example="stackctl refunds resume 7c9e6679-7425-40de-944b-e07fc1f90ae7\nstackctl refunds resume --all",
)
def resume(
    run: Run,
    refund: Annotated[
        str | None, typer.Argument(metavar="REFUND", help="The id of a refund, or Stripe's (re_); or pass --all.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every refund that is not settled.")] = False,
    give_up: Annotated[
        bool,
        typer.Option(
            "--give-up", help="Give up what can't be finished: too old to be sent, not to be asked, not to be lowered."
        ),
    ] = False,
    tenancy: TenancyFilter = None,
    stripe_api_key: StripeApiKey = None,
    stripe_api_base: StripeApiBase = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --give-up: do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which refunds, and neither ask nor send.")] = False,
) -> None:
    """Find out what became of refunds whose outcome is not known, and finish them. Safe to run from cron.

    One that Stripe has is taken over from there; one that it does not have is sent again, under its own key, for 23
    hours. What was planned and not sent is sent, or after 23 hours canceled. With --all a live key passes over the
    refunds of test mode.

    Prints what became of each.
    Exit codes: 0 settled, given up, or nothing to settle; 2 no such refund; 4 the database or Stripe can't be reached,
    or Stripe refuses the key; 5 a refund has failed, or can't be given up; 6 the outcome is still unknown or not final.
    """
    from stackctl.payments.refunds import execute

    if (refund is None) != everything:
        raise UsageError("name one refund, or --all for all that are not settled", code="usage")
    open_gateway = prepare_gateway(run, stripe_api_key, stripe_api_base)
    if give_up and everything:
        raise UsageError("--give-up takes one refund, not --all", code="usage")
    with run.database() as conn:
        if dry_run:
            only = find_tenancy(conn, tenancy)
            _show_unsettled(run, _list_unsettled(conn, only) if refund is None else
                            [find_refund(conn, refund)])  # fmt: skip
            return
        if refund is None:
            _resume_all(run, conn, open_gateway, find_tenancy(conn, tenancy))
            return
        one = find_refund(conn, refund)
        if not give_up:
            settled = run_naming_refund(run, one, lambda: execute.settle_refund(conn, open_gateway(one.account), one))
            finish_outcome(run, conn, settled)
            return
        what = "leave its subscription as it is" if one.status == "succeeded" else "free its money to be refunded anew"
        run.confirm(f"Give up refund {one.id}, and {what}?", yes=yes)
        _finish_given_up(run, execute.give_up_refund(conn, open_gateway(one.account), one).refund)


def _finish_given_up(run: Run, refund: Refund) -> None:
    """What was to be done and is not: somebody has to know."""
    from stackctl.payments.money import format_money

    if refund.status == "succeeded":
        undone = [f"the subscription keeps its quantity and goes on: {refund.quantity} are not taken off"]
    else:
        asked = "was not found to be refunded" if refund.submitted_at else "was not refunded"
        undone = [f"{format_money(refund.amount, refund.currency)} {asked} ({refund.failure})"]
        if refund.quantity:
            undone.append(f"{refund.quantity} are not revoked")

    def show() -> None:
        for line in undone:
            run.console.line(line, "yellow")
        run.console.line(f"refund {refund.id}")

    run.finish({"refund": refund_document(refund), "undone": undone}, show)


def _list_unsettled(conn: Connection, tenancy: UUID | None) -> Sequence[Refund]:
    """In the order in which they were asked for."""
    from stackctl.payments.refunds import ledger

    return ledger.find_refunds(conn, tenancy=tenancy, unsettled=True)[::-1]


def _show_unsettled(run: Run, found: Sequence[Refund]) -> None:
    waiting = [one for one in found if not one.is_settled]

    def show() -> None:
        refunds_table(run, waiting)
        run.console.line(f"{format_count(len(waiting), 'refund', 'refunds')} to settle; Stripe was not asked")

    run.finish({"refunds": [refund_document(one) for one in waiting], "dry_run": True}, show)


def _resume_all(run: Run, conn: Connection, open_gateway: Callable[[str], Gateway], tenancy: UUID | None) -> None:
    from stackctl.payments.refunds import execute, ledger
    from stackctl.postgres.errors import translating_errors

    outcomes: list[Outcome] = []
    skipped = 0
    for one in _list_unsettled(conn, tenancy):
        gateway = open_gateway(one.account)
        if gateway.mode == "live" and not one.livemode:
            skipped += 1  # no money moves there, and this key sees nothing of it
            continue
        try:
            with translating_errors("the operated database"):
                outcome = run_naming_refund(run, one, lambda one=one, on=gateway: execute.settle_refund(conn, on, one))
        except StackctlError as error:
            outcome = execute.Outcome(ledger.get_refund(conn, one.id), error)
        outcomes.append(outcome)
        if outcome.problem is not None:
            run.console.warn(f"refund {one.id}: {outcome.problem.message}")
        elif not outcome.refund.holds_money:
            run.console.warn(f"refund {one.id}: {describe_failure(outcome.refund)}")
    if skipped:
        run.console.info(
            f"{format_count(skipped, 'refund', 'refunds')} of test mode passed over: the key is a live key"
        )
    left = [one for one in outcomes if not one.refund.is_settled]
    failed = [one for one in outcomes if not one.refund.holds_money]
    problems = [one.problem for one in left if isinstance(one.problem, ServiceError)]
    if problems and len(left) == len(outcomes):
        raise problems[0]

    def show() -> None:
        refunds_table(run, [one.refund for one in outcomes])
        settled = len(outcomes) - len(left)
        if outcomes:  # cron writes a mail of every line
            run.console.line(f"{settled} settled, {len(left)} not yet", "yellow" if left else "green")

    result = {"refunds": [refund_document(one.refund) for one in outcomes], "settled": len(outcomes) - len(left),
              "left": len(left), "failed": len(failed), "skipped": skipped}  # fmt: skip
    run.finish(result, show, ok=not left and not failed, exit_code=REFUSED if failed else UNSETTLED)

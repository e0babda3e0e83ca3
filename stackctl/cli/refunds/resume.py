"""stackctl refunds resume"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.arguments import find_tenancy, parse_uuid
from stackctl.cli.command import Run, command, format_count
from stackctl.cli.refunds.shared import (
    UNSETTLED,
    TenancyFilter,
    finish_outcome,
    refund_document,
    refunds_table,
    run_naming_refund,
)
from stackctl.cli.stripe_options import StripeApiBase, StripeApiKey, prepare_gateway
from stackctl.core.errors import ConfigError, ServiceError, StackctlError, UsageError

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
    refund: Annotated[str | None, typer.Argument(metavar="REFUND", help="The id of a refund; or pass --all.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every refund that is not settled.")] = False,
    give_up: Annotated[
        bool,
        typer.Option(
            "--give-up", help="Give up a refund too old to be sent again, or a quantity that can't be lowered."
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
    hours. What was planned and not sent is sent, or after 23 hours canceled.

    Exit codes: 0 settled, or nothing to settle; 2 no such refund; 4 Stripe can't be reached or refuses the key; 5 the
    refund failed; 6 the outcome is still unknown or not final.
    """
    from stackctl.payments.refunds import execute, ledger

    if (refund is None) != everything:
        raise UsageError("name one refund, or --all for all that are not settled", code="usage")
    open_gateway = prepare_gateway(run, stripe_api_key, stripe_api_base)
    if give_up and everything:
        raise UsageError("--give-up takes one refund, not --all", code="usage")
    with run.database() as conn:
        if dry_run:
            only = find_tenancy(conn, tenancy)
            _show_unsettled(run, _list_unsettled(conn, only) if refund is None else
                            [ledger.get_refund(conn, parse_uuid(refund, "refund"))])  # fmt: skip
            return
        if refund is None:
            _resume_all(run, conn, open_gateway, find_tenancy(conn, tenancy))
            return
        one = ledger.get_refund(conn, parse_uuid(refund, "refund"))
        if give_up:
            what = (
                "leave its subscription as it is" if one.status == "succeeded" else "free its money to be refunded anew"
            )
            run.confirm(f"Give up refund {one.id}, and {what}?", yes=yes)
        work = execute.give_up_refund if give_up else execute.settle_refund
        finish_outcome(run, run_naming_refund(run, one, lambda: work(conn, open_gateway(one.account), one)))


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
    for one in _list_unsettled(conn, tenancy):
        try:
            with translating_errors("the operated database"):
                outcome = run_naming_refund(
                    run, one, lambda one=one: execute.settle_refund(conn, open_gateway(one.account), one)
                )
        except ConfigError:
            raise  # no key: not this refund's problem
        except StackctlError as error:
            outcome = execute.Outcome(ledger.get_refund(conn, one.id), error)
        outcomes.append(outcome)
        if outcome.problem is not None:
            run.console.warn(f"refund {one.id}: {outcome.problem.message}")
    left = [one for one in outcomes if not one.refund.is_settled]
    problems = [one.problem for one in left if isinstance(one.problem, ServiceError)]
    if problems and len(left) == len(outcomes):
        raise problems[0]

    def show() -> None:
        refunds_table(run, [one.refund for one in outcomes])
        settled = len(outcomes) - len(left)
        if outcomes:
            run.console.line(f"{settled} settled, {len(left)} not yet", "yellow" if left else "green")
        else:
            run.console.line("nothing to settle")

    result = {"refunds": [refund_document(one.refund) for one in outcomes], "settled": len(outcomes) - len(left),
              "left": len(left)}  # fmt: skip
    run.finish(result, show, ok=not left, exit_code=UNSETTLED)

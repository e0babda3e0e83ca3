"""stackctl refunds list"""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.arguments import find_tenancy, name_operator, parse_text_option, parse_time_option
from stackctl.cli.command import Run, command
from stackctl.cli.refunds.shared import REFUND_COLUMNS, TenancyFilter, find_purchase, list_rows, refund_document
from stackctl.cli.stripe_options import StripeApiBase, StripeApiKey, prepare_gateway
from stackctl.core.errors import ServiceError, UsageError
from stackctl.core.sentences import format_count
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from uuid import UUID

    from stackctl.payments.gateway import Gateway
    from stackctl.payments.refunds.reconcile import Difference
    from stackctl.postgres.connect import Connection


class StatusName(Enum):
    planned = "planned"
    submitted = "submitted"
    pending = "pending"
    succeeded = "succeeded"
    failed = "failed"
    canceled = "canceled"


@command(
    example="stackctl refunds list --since 24h\nstackctl refunds list --status submitted --json\n"
    "stackctl refunds list --reconcile --since 720h\nstackctl refunds list --status failed -o csv",
    lists=True,
)
def list_(
    run: Run,
    tenancy: TenancyFilter = None,
    customer: Annotated[
        str | None, typer.Option("--customer", metavar="ID", help="Only this customer's; a user by address, too.")
    ] = None,
    purchase: Annotated[
        str | None,
        typer.Option("--purchase", metavar="ID", help="Only this purchase's, named as for `refunds create`."),
    ] = None,
    status: Annotated[StatusName | None, typer.Option("--status", help="Only of this status.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only refunds created since a time, or e.g. 24h ago.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Only refunds created before a time, or e.g. 1h ago.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1_000_000, help="How many to list, the newest first.")
    ] = 100,
    reconcile: Annotated[bool, typer.Option("--reconcile", help="Name every difference from Stripe.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="With --reconcile: refunds that were made elsewhere are differences, too.")
    ] = False,
    acknowledge: Annotated[
        str | None,
        typer.Option(
            "--acknowledge", metavar="ID", help="With --reconcile: the difference of this refund is in order."
        ),
    ] = None,
    why: Annotated[str | None, typer.Option("--why", metavar="TEXT", help="With --acknowledge: why it is.")] = None,
    stripe_api_key: StripeApiKey = None,
    stripe_api_base: StripeApiBase = None,
) -> None:
    """List the refunds of the ledger, the newest first; with --reconcile, compare the ledger with Stripe.

    What was refunded elsewhere, in Stripe's dashboard say, is shown; it is a difference with --strict only. Nor is one
    that was acknowledged, with who did and why, for as long as it stays what it is.

    Prints a row for each refund.
    Exit codes: 0 listed, nothing differs; 1 ledger and Stripe differ; 2 nothing to acknowledge has that id; 4 Stripe
    can't be reached or refuses the key, for one of the accounts at least.
    """
    from stackctl.backend.users import find_user
    from stackctl.payments.refunds import ledger

    customer = parse_text_option(customer, "--customer")
    start, end = parse_time_option(since, "--since"), parse_time_option(until, "--until")
    open_gateway = prepare_gateway(run, stripe_api_key, stripe_api_base)
    if reconcile and (customer or purchase or status or until or run.options["list_format"]):
        raise UsageError("--reconcile goes with --tenancy and --since only", code="usage")
    if acknowledge is not None and not reconcile:
        raise UsageError("--acknowledge goes with --reconcile", code="usage")
    if (acknowledge is None) != (why is None):
        raise UsageError("--acknowledge and --why go together", code="usage", hint="say for whom comes after you why")
    answer = None if acknowledge is None else (acknowledge.strip(), parse_text_option(why, "--why") or "")
    if strict and not reconcile:
        raise UsageError("--strict goes with --reconcile", code="usage")
    with run.database() as conn:
        only = find_tenancy(conn, tenancy)
        if reconcile:
            _reconcile(run, conn, open_gateway, only, start, strict=strict, answer=answer)
            return
        if customer is not None and "@" in customer:
            customer = str(find_user(conn, customer, only).id)
        bought = find_purchase(run, conn, purchase, tenancy, None, open_gateway)[0].id if purchase else None
        found = ledger.find_refunds(conn, tenancy=only, customer=customer, purchase=bought,
                                    status=status.value if status else None, since=start, until=end,
                                    limit=limit + 1)  # fmt: skip
    more, found = len(found) > limit, found[:limit]
    document = {"refunds": [refund_document(one) for one in found], "more": more}
    run.finish_list(document, REFUND_COLUMNS, list_rows(found), empty="no refunds")
    if more and not run.json_output:
        run.console.info(f"the newest {limit}; --limit shows more")


def _reconcile(
    run: Run,
    conn: Connection,
    open_gateway: Callable[[str], Gateway],
    tenancy: UUID | None,
    since: datetime | None,
    *,
    strict: bool,
    answer: tuple[str, str] | None,
) -> None:
    """`answer`: the id whose differences are acknowledged, and why."""
    from stackctl.payments import connection
    from stackctl.payments.refunds.reconcile import compare_account

    differences: list[tuple[str, Difference]] = []
    compared = skipped = 0
    accounts, problems = connection.list_accounts(conn, tenancy), dict[str, ServiceError]()
    for account in accounts:
        gateway = open_gateway(account)
        try:
            found = compare_account(conn, gateway, account, tenancy, since)
        except ServiceError as error:  # of one that was disconnected, say: the others are compared all the same
            problems[account] = error
            continue
        skipped += found.skipped
        compared += found.compared
        differences += [(account, one) for one in found.differences]
    if problems and len(problems) == len(accounts):
        raise next(iter(problems.values()))
    for account, problem in problems.items():
        run.console.warn(f"account {account} could not be compared: {problem.message}")
    if answer is not None:
        differences = _acknowledge(conn, differences, *answer)
    if skipped:
        run.console.warn(f"{format_count(skipped, 'refund', 'refunds')} of the key's other mode could not be compared")

    differing = sum(not one.acknowledged and (strict or one.kind != "made-elsewhere") for _, one in differences)

    def show() -> None:
        rows = [(one.kind, str(one.refund or ""), one.stripe_refund or "", _describe(one)) for _, one in differences]
        if rows:
            run.console.table(("difference", "refund", "in Stripe", Column("what", folds=True)), rows)
        if differing:
            return
        if compared:
            run.console.line(
                f"ledger and Stripe agree: {format_count(compared, 'refund', 'refunds')} compared", "green"
            )
        elif not rows:
            run.console.line("neither the ledger nor Stripe has a refund")

    listed = [
        {
            "account": account,
            "kind": one.kind,
            "refund": one.refund,
            "stripe_refund_id": one.stripe_refund,
            "message": one.message,
            "acknowledged": asdict(one.acknowledged) if one.acknowledged else None,
        }
        for account, one in differences
    ]
    ok = not differing and not problems
    result = {"ok": ok, "compared": compared, "skipped": skipped, "not_compared": list(problems), "differences": listed}
    run.finish(result, show, ok=ok, exit_code=1 if differing else ServiceError.exit_code)


def _describe(one: Difference) -> str:
    if one.acknowledged is None:
        return one.message
    known = one.acknowledged
    return f"{one.message}; acknowledged by {known.by} on {known.at:%Y-%m-%d}: {known.why}"


def _acknowledge(
    conn: Connection, differences: list[tuple[str, Difference]], id_: str, why: str
) -> list[tuple[str, Difference]]:
    """All differences of a refund, named by the ledger's id or by Stripe's. Raises UsageError `unknown-difference`."""
    from stackctl.payments.refunds.reconcile import acknowledge_difference

    if not any(one.is_of(id_) for _, one in differences):
        raise UsageError(
            f"no difference is of {id_}",
            code="unknown-difference",
            hint="`stackctl refunds list --reconcile` names them; with --since, it looks at just so many",
        )
    by = name_operator()
    return [
        (account, acknowledge_difference(conn, account, one, why, by) if one.is_of(id_) else one)
        for account, one in differences
    ]

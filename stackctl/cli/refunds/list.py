"""stackctl refunds list"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.arguments import find_tenancy, parse_text_option, parse_time_option
from stackctl.cli.command import Run, command, format_count
from stackctl.cli.refunds.shared import REFUND_COLUMNS, TenancyFilter, find_purchase, list_rows, refund_document
from stackctl.cli.stripe_options import StripeApiBase, StripeApiKey, prepare_gateway
from stackctl.core.errors import ServiceError, UsageError

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
    customer: Annotated[str | None, typer.Option("--customer", metavar="ID", help="Only this customer's.")] = None,
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
    stripe_api_key: StripeApiKey = None,
    stripe_api_base: StripeApiBase = None,
) -> None:
    """List the refunds of the ledger, the newest first; with --reconcile, compare the ledger with Stripe.

    Exit codes: 0 listed, nothing differs; 1 ledger and Stripe differ; 4 Stripe can't be reached or refuses the key, for
    one of the accounts at least.
    """
    from stackctl.payments.refunds import ledger

    customer = parse_text_option(customer, "--customer")
    start, end = parse_time_option(since, "--since"), parse_time_option(until, "--until")
    open_gateway = prepare_gateway(run, stripe_api_key, stripe_api_base)
    if reconcile and (customer or purchase or status or until or run.options["list_format"]):
        raise UsageError("--reconcile goes with --tenancy and --since only", code="usage")
    with run.database() as conn:
        only = find_tenancy(conn, tenancy)
        if reconcile:
            _reconcile(run, conn, open_gateway, only, start)
            return
        bought = find_purchase(run, conn, purchase, tenancy, None, open_gateway)[0].id if purchase else None
        found = ledger.find_refunds(conn, tenancy=only, customer=customer, purchase=bought,
                                    status=status.value if status else None, since=start, until=end,
                                    limit=limit + 1)  # fmt: skip
    more, found = len(found) > limit, found[:limit]
    document = {"refunds": [refund_document(one) for one in found], "more": more}
    run.finish_list(
        document,
        REFUND_COLUMNS,
        list_rows(found),
        empty="no refunds",
        right=("amount",),
        folds=("status",),
        spare=("customer", "asked"),
    )
    if more and not run.json_output:
        run.console.info(f"the newest {limit}; --limit shows more")


def _reconcile(
    run: Run, conn: Connection, open_gateway: Callable[[str], Gateway], tenancy: UUID | None, since: datetime | None
) -> None:
    from stackctl.payments import connection
    from stackctl.payments.refunds import ledger
    from stackctl.payments.refunds.reconcile import compare_with_stripe

    differences: list[tuple[str, Difference]] = []
    compared = skipped = 0
    accounts, problems = connection.list_accounts(conn, tenancy), dict[str, ServiceError]()
    for account in accounts:
        gateway = open_gateway(account)
        try:
            stripe_refunds = gateway.list_refunds_since(since)
            known = ledger.find_refunds(conn, account=account)
            own = [one for one in known if one.livemode == (gateway.mode == "live")]
            found = compare_with_stripe(gateway, stripe_refunds, own, since)
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
        run.console.warn(f"{format_count(skipped, 'refund', 'refunds')} of the key's other mode could not be compared")

    def show() -> None:
        rows = [(one.kind, str(one.refund or ""), one.stripe_refund or "", one.message) for _, one in differences]
        if rows:
            run.console.table(("difference", "refund", "in Stripe", "what"), rows, folds=("what",))
        elif compared:
            run.console.line(
                f"ledger and Stripe agree: {format_count(compared, 'refund', 'refunds')} compared", "green"
            )
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

"""stackctl refunds create"""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.arguments import name_operator, parse_text_option
from stackctl.cli.command import Run, command
from stackctl.cli.refunds.shared import (
    Invoice,
    Latest,
    OptionalPurchaseId,
    Tenancy,
    find_purchase,
    finish_outcome,
    list_entries,
    read_balance,
    run_naming_refund,
)
from stackctl.cli.stripe_options import StripeApiBase, StripeApiKey, prepare_gateway
from stackctl.core.errors import UsageError
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from stackctl.payments.refunds.balance import RefundableBalance
    from stackctl.payments.refunds.ledger import Refund
    from stackctl.payments.refunds.refund_rows import RefundRow
    from stackctl.payments.refunds.request import AskedEntry, RefundEntry, RefundRequest
    from stackctl.postgres.connect import Connection

_ENTRY = re.compile(r"([0-9]{1,9}):([0-9]{1,9}):(.*)", re.DOTALL)


class Reason(Enum):
    duplicate = "duplicate"
    fraudulent = "fraudulent"
    requested_by_customer = "requested_by_customer"


class EndName(Enum):
    now = "now"
    period = "period"
    no = "no"


@command(
    example="stackctl refunds create 0d4a9a10-5a0b-4d8e-9f2b-1c2d3e4f5a6b --full --dry-run\n"
    "stackctl refunds create 0d4a9a10-5a0b-4d8e-9f2b-1c2d3e4f5a6b --amount 5.00\n"
    "stackctl refunds create --file refunds.csv --report report.csv --dry-run",
)
def create(
    run: Run,
    id_: OptionalPurchaseId = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="A CSV file of refunds, a row each; - reads stdin.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Refund all that remains, and revoke everything.")] = False,
    amount: Annotated[
        str | None,
        typer.Option(
            "--amount", metavar="AMOUNT", help="E.g. 19.99, in the currency that was paid in; or 50% of what was paid."
        ),
    ] = None,
    revoke: Annotated[
        int | None,
        typer.Option("--revoke", "--quantity", min=0, help="How many are revoked; else all with --full, or none."),
    ] = None,
    entry: Annotated[
        list[str] | None, typer.Option("--entry", metavar="INDEX:QTY:AMOUNT", help="Of one entry of the preview.")
    ] = None,
    end: Annotated[
        EndName | None,
        typer.Option("--end", help="Of a subscription: end it now, with its period, or not, whatever is refunded."),
    ] = None,
    reason: Annotated[Reason | None, typer.Option("--reason", help="Why, as Stripe is told.")] = None,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Kept in the ledger.")] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="NAME", help="Who refunds it; else your name on this machine.")
    ] = None,
    invoice: Invoice = None,
    latest: Latest = False,
    request_id: Annotated[
        str | None,
        typer.Option(
            "--request-id", metavar="ID", help="An id of your own: repeated with it, the command refunds once."
        ),
    ] = None,
    credit_note: Annotated[
        bool, typer.Option("--credit-note", help="Of a subscription's invoice: refund with a credit note of it.")
    ] = False,
    release_schedule: Annotated[
        bool,
        typer.Option("--release-schedule", help="End the schedule that manages the subscription, before the money."),
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Even if the same was refunded moments ago.")] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="With --file: what became of each row, as .csv or .json."),
    ] = None,
    skip_refused: Annotated[
        bool, typer.Option("--skip-refused", help="With --file: refund the others, where rows can't be.")
    ] = False,
    tenancy: Tenancy = None,
    stripe_api_key: StripeApiKey = None,
    stripe_api_base: StripeApiBase = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the exact request, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Refund a purchase or a subscription's payment, in full or in part.

    The refund is written into a ledger before Stripe is asked. Whatever happens then, it is not made twice: when the
    outcome is not known (exit code 6), `stackctl refunds resume` finds it out.

    A file has the columns purchase and amount (`full`: all that remains), and may have quantity, invoice, tenancy,
    reason, note and request_id. All rows are looked at before any money moves. The same file again refunds nothing
    twice: a row without a request_id has one made of its purchase, invoice, amount and quantity, and is refused where
    another request refunded the same moments ago, unless with --again.

    Prints the amount, and the ids of the refund in the ledger and at Stripe; with --dry-run the request. Of a file, the
    sums by currency, and each row that was not refunded.
    Exit codes: 0 refunded; 2 bad usage, no such purchase; 3 the file is bad; 4 the database or Stripe can't be reached,
    or Stripe refuses the key; 5 refused, or not confirmed; 6 sent, and the outcome is unknown or not final.
    """
    from stackctl.payments.refunds import execute
    from stackctl.payments.refunds.quantity import check_quantity
    from stackctl.payments.refunds.request import RefundRequest, resolve_entries, to_stripe_params

    who = parse_text_option(by, "--by", 100) or name_operator()[:100]
    if file is not None:
        if any((id_, full, amount, revoke, entry, end, invoice, latest, request_id, credit_note, release_schedule)):
            raise UsageError("--file says what to refund, row by row", code="usage",
                             hint="also go --again, --reason, --note, --by, --tenancy, --report, "
                                  "--skip-refused")  # fmt: skip
        from stackctl.cli.refunds.create_file import create_from_file
        from stackctl.payments.refunds.batch import Pace

        def make_request(row: RefundRow) -> RefundRequest:
            entries = _parse_entries(row.amount is None, row.amount, row.quantity, None)
            if entries and not entries[0].amount.number and not row.quantity:
                raise UsageError("a refund of nothing: neither an amount nor a quantity", code="schema-error")
            return RefundRequest(
                entries=entries,
                reason=row.reason or (reason.value if reason else None),
                note=row.note or parse_text_option(note, "--note"),
                by=who,
                revoke=row.quantity if row.amount is None else None,
                again=again,
            )

        pace = Pace()
        create_from_file(
            run, file, prepare_gateway(run, stripe_api_key, stripe_api_base, pace.wait), pace, make_request,
            report=report, tenancy=tenancy, skip_refused=skip_refused, dry_run=dry_run, yes=yes,
        )  # fmt: skip
        return
    if id_ is None:
        raise UsageError("name a purchase, or a file of them with --file", code="usage")
    if report is not None or skip_refused:
        raise UsageError("--report and --skip-refused go with --file", code="usage")
    request = RefundRequest(
        entries=_parse_entries(full, amount, revoke, entry),
        revoke=revoke if full else None,
        end=end.value if end else None,
        credit_note=credit_note,
        reason=reason.value if reason else None,
        note=parse_text_option(note, "--note"),
        by=who,
        request_id=parse_text_option(request_id, "--request-id"),
        again=again,
    )
    open_gateway = prepare_gateway(run, stripe_api_key, stripe_api_base)
    with run.database() as conn:
        purchase, paid = find_purchase(run, conn, id_, tenancy, invoice, open_gateway, latest=latest)
        request = replace(request, invoice=paid)
        known = execute.find_by_request(conn, purchase, request)
        if known is not None and not known.is_repeatable:
            run.console.info(f"request {request.request_id} has led to refund {known.id} before")
            if dry_run:
                _dry_run_of_known(run, known)
                return
            gateway = open_gateway(known.account)
            finish_outcome(
                run,
                conn,
                run_naming_refund(run, known, lambda: execute.settle_refund(conn, gateway, known, asked_anew=True)),
            )
            return
        balance, gateway = read_balance(run, conn, purchase, paid, open_gateway, takes_over=not dry_run)
        entries = resolve_entries(request, balance)
        assert gateway is not None, "what has no payment is refused"
        schedule = check_quantity(
            gateway, balance, entries, ends_now=request.end == "now", release_schedule=release_schedule
        )
        if credit_note:
            gateway.preview_credit_note(to_stripe_params(balance, entries, request, "preview"))
        if dry_run:
            _dry_run(run, balance, entries, request, schedule)
            return
        run.confirm(_question(conn, balance, entries, request, gateway.mode, schedule), yes=yes)
        if schedule is not None:
            gateway.release_schedule(schedule)
        refund = execute.plan_refund(conn, balance, entries, request)

        def wait(seconds: float) -> None:
            run.console.info("Stripe has not answered; looking for the refund")
            time.sleep(seconds)

        finish_outcome(
            run,
            conn,
            run_naming_refund(run, refund, lambda: execute.execute_refund(conn, gateway, refund, balance, wait=wait)),
        )


def _dry_run_of_known(run: Run, known: Refund) -> None:
    from stackctl.cli.refunds.shared import refund_document

    what = "nothing would be sent" if known.is_settled else "it would be settled as `stackctl refunds resume` does it"
    run.finish(
        {"dry_run": True, "requests": [], "refund": refund_document(known)},
        lambda: run.console.line(f"refund {known.id} is {known.status}: {what}"),
    )


def _parse_entries(
    full: bool, amount: str | None, revoke: int | None, given: list[str] | None
) -> tuple[AskedEntry, ...] | None:
    from stackctl.payments.money import parse_amount
    from stackctl.payments.refunds.request import GRANT, AskedEntry

    if [full, amount is not None, bool(given)].count(True) != 1:
        raise UsageError(
            "say what to refund: one of --full, --amount and --entry",
            code="usage",
            hint="e.g. --amount 5.00; to revoke without money, --amount 0",
        )
    if revoke is not None and given:
        raise UsageError(
            "--revoke goes with --amount and --full", code="usage", hint="--entry INDEX:QTY:AMOUNT says it already"
        )
    if full:
        return None
    if amount is not None:
        return (AskedEntry(GRANT, revoke, parse_amount(amount)),)
    found: list[AskedEntry] = []
    for text in given or ():
        match = _ENTRY.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text[:40]!r} is not INDEX:QTY:AMOUNT", code="schema-error", hint="e.g. --entry 0:1:19.99"
            )
        found.append(AskedEntry(int(match[1]), int(match[2]), parse_amount(match[3])))
    if not any(one.amount.number for one in found):
        raise UsageError(
            "a refund of nothing: the amount must be above 0",
            code="schema-error",
            hint="to revoke without money: --amount 0 --revoke N",
        )
    return tuple(found)


def _question(
    conn: Connection,
    balance: RefundableBalance,
    entries: tuple[RefundEntry, ...],
    request: RefundRequest,
    mode: str,
    schedule: str | None,
) -> str:
    from stackctl.payments.money import format_money

    purchase, payment = balance.purchase, balance.payment
    assert payment is not None, "what has no payment is refused"
    amount = sum(entry.amount for entry in entries)
    asked = request.entries[0].amount if request.entries else None
    share = f"{asked} of what was paid, rounded down; " if asked and asked.is_percent else ""
    kind = "test money" if mode == "test" else "REAL MONEY"
    doing = ["issue a credit note"] if request.credit_note else []
    doing += _name_revoking(conn, balance, entries, request)
    if schedule is not None:
        doing.append(f"end schedule {schedule} with its later phases")
    further = "".join(f", and {one}" for one in doing)
    paid = f"{format_money(payment.received, payment.currency)} on {payment.created_at:%Y-%m-%d}"
    which = f"invoice {balance.invoice}" if balance.invoice else f"payment {payment.intent}"
    if newer := balance.newer_invoices:
        which += f"; {format_count(len(newer), 'newer one was', 'newer ones were')} paid since"
    whom = f"{purchase.customer_type} {purchase.customer}, who paid {paid} ({which})"
    money = f"Refund {format_money(amount, payment.currency)} ({share}{kind})" if amount else f"Refund nothing ({kind})"
    return f"{money} of {purchase.name} to {whom}{further}?"


def _name_revoking(
    conn: Connection, balance: RefundableBalance, entries: tuple[RefundEntry, ...], request: RefundRequest
) -> list[str]:
    """What is taken away beside the money."""
    from stackctl.payments.entitlements import has_derived_ledger

    purchase, taken = balance.purchase, sum(entry.quantity for entry in entries)
    if request.end == "now":
        return ["end the subscription now"]
    if not taken:
        return []
    revoking = f"revoke {taken} of {balance.bought}"
    if purchase.type != "subscription":
        behind = " here, while the backend grants it until its own ledger is brought up"
        return [revoking + (behind if has_derived_ledger(conn) else "")]
    return [revoking + (", so that the subscription ends with its period" if taken == balance.quantity_left else "")]


def _dry_run(
    run: Run,
    balance: RefundableBalance,
    entries: tuple[RefundEntry, ...],
    request: RefundRequest,
    schedule: str | None,
) -> None:
    from stackctl.payments.refunds.execute import make_idempotency_key
    from stackctl.payments.refunds.request import to_stripe_params

    id_ = "<id of the refund>"
    taken = sum(entry.quantity for entry in entries)
    requests: list[dict[str, Any]] = []
    if schedule is not None:
        path = f"/v1/subscription_schedules/{schedule}/release"
        requests.append({"method": "POST", "path": path, "headers": {"Stripe-Account": balance.account}, "params": {}})
    if any(entry.amount for entry in entries):
        requests.append(
            {
                "method": "POST",
                "path": "/v1/credit_notes" if request.credit_note else "/v1/refunds",
                "headers": {"Stripe-Account": balance.account, "Idempotency-Key": make_idempotency_key(id_)},
                "params": to_stripe_params(balance, entries, request, id_),
            }
        )
    if request.end == "now":
        path = f"/v1/subscriptions/{balance.purchase.stripe_id}"
        requests.append(
            {"method": "DELETE", "path": path, "headers": {"Stripe-Account": balance.account}, "params": {}}
        )
    elif balance.purchase.type == "subscription" and taken:
        left = balance.quantity_left - taken
        item = {"items": [{"id": "<its item>", "quantity": left}], "proration_behavior": "none"}
        requests.append(
            {
                "method": "POST",
                "path": f"/v1/subscriptions/{balance.purchase.stripe_id}",
                "headers": {"Stripe-Account": balance.account},
                "params": item if left else {"cancel_at_period_end": True},
            }
        )

    def show() -> None:
        for one in requests:
            run.console.line(f"{one['method']} {one['path']}")
            for name, value in one["headers"].items():
                run.console.line(f"{name}: {value}")
            if one["params"]:
                run.console.document(json.dumps(one["params"], indent=2) + "\n")
        run.console.line("nothing was sent")

    run.finish(
        {"dry_run": True, "requests": requests, "entries": list_entries([entry.document for entry in entries])}, show
    )

"""stackctl refunds preview, create"""

from __future__ import annotations

import json
import re
import time
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command, group, text_option, uuid_argument
from stackctl.cli.payments_common import ApiBase, ApiKey, stripe
from stackctl.errors import StackctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from stackctl.db import Connection
    from stackctl.payments.gateway import Gateway
    from stackctl.payments.ledger import Refund
    from stackctl.payments.position import Position
    from stackctl.payments.purchases import Purchase
    from stackctl.payments.refunds import Outcome
    from stackctl.payments.wanted import Entry, Wanted

app = group("Give money back through Stripe, never twice.", example="stackctl refunds list --since 24h")

apps = {"refunds": app}

UNSETTLED, REFUSED = 6, 5  # exit codes
_ENTRY = re.compile(r"([0-9]{1,9}):([0-9]{1,9}):(.*)", re.DOTALL)


class Reason(Enum):
    duplicate = "duplicate"
    fraudulent = "fraudulent"
    requested_by_customer = "requested_by_customer"


PurchaseId = Annotated[str, typer.Argument(metavar="ID", help="Of a purchase or a subscription.")]
Tenancy = Annotated[
    str | None, typer.Option("--tenancy", metavar="TENANCY", help="Only needed where several have this id.")
]
Invoice = Annotated[
    str | None,
    typer.Option("--invoice", metavar="ID", help="Of a subscription: this one's payment, not the creation's."),
]


@command(app, "preview", example="stackctl refunds preview 0d4a9a10-5a0b-4d8e-9f2b-1c2d3e4f5a6b")
def preview(
    run: Run,
    id_: PurchaseId,
    invoice: Invoice = None,
    tenancy: Tenancy = None,
    stripe_api_key: ApiKey = None,
    stripe_api_base: ApiBase = None,
) -> None:
    """Show what was bought, charged and refunded, what remains, and why it can't be refunded when it can't.

    Exit codes: 0 shown; 2 no such purchase; 4 Stripe can't be reached or refuses the key.
    """
    from stackctl.payments.purchases import find
    from stackctl.sync.pipeline import Pipeline

    opened = stripe(run, stripe_api_key, stripe_api_base)
    with Pipeline(run.settings).session() as conn:
        purchase = find(conn, uuid_argument(id_, "purchase"), _tenancy(tenancy))
        position, _ = _read(conn, purchase, text_option(invoice, "--invoice"), opened)
    run.finish(_preview_document(position), lambda: _show_preview(run, position))


@command(
    app,
    "create",
    example="stackctl refunds create 0d4a9a10-5a0b-4d8e-9f2b-1c2d3e4f5a6b --full --dry-run\n"
    "stackctl refunds create 0d4a9a10-5a0b-4d8e-9f2b-1c2d3e4f5a6b --amount 5.00 --reason requested_by_customer",
)
def create(
    run: Run,
    id_: PurchaseId,
    full: Annotated[bool, typer.Option("--full", help="All money that remains; everything is revoked.")] = False,
    amount: Annotated[str | None, typer.Option("--amount", metavar="USD", help="So many dollars, as in 19.99.")] = None,
    quantity: Annotated[
        int | None, typer.Option("--quantity", min=0, help="With --amount: how many are revoked; else none.")
    ] = None,
    entry: Annotated[
        list[str] | None, typer.Option("--entry", metavar="INDEX:QTY:USD", help="Of one entry of the preview.")
    ] = None,
    reason: Annotated[Reason | None, typer.Option("--reason", help="Told to Stripe.")] = None,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Kept in the ledger.")] = None,
    invoice: Invoice = None,
    request_id: Annotated[
        str | None,
        typer.Option("--request-id", metavar="ID", help="Yours: repeated with it, the command refunds once."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Though the same was refunded moments ago.")] = False,
    tenancy: Tenancy = None,
    stripe_api_key: ApiKey = None,
    stripe_api_base: ApiBase = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the exact request, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Refund a purchase or a subscription's payment, wholly or in part.

    The refund is written into a ledger before Stripe is asked. Whatever happens then, it is not made twice: when the
    outcome is not known (exit code 6), `stackctl refunds resume` finds it out.

    Exit codes: 0 refunded; 2 bad usage, no such purchase; 4 Stripe can't be reached or refuses the key; 5 refused, or
    not confirmed; 6 sent, and the outcome is unknown or not final.
    """
    from stackctl.payments import refunds
    from stackctl.payments.purchases import find
    from stackctl.payments.wanted import Wanted, entries
    from stackctl.sync.pipeline import Pipeline

    wanted = Wanted(
        entries=_wanted(full, amount, quantity, entry),
        reason=reason.value if reason else None,
        note=text_option(note, "--note"),
        request_id=text_option(request_id, "--request-id"),
        invoice=text_option(invoice, "--invoice"),
        again=again,
    )
    opened = stripe(run, stripe_api_key, stripe_api_base)
    with Pipeline(run.settings).session() as conn:
        purchase = find(conn, uuid_argument(id_, "purchase"), _tenancy(tenancy))
        known = refunds.of_request(conn, purchase, wanted)
        if known is not None and not dry_run:
            run.console.info(f"request {wanted.request_id} has led to refund {known.id} before")
            finish(run, told(run, known, lambda: refunds.carry_out(conn, opened(known.account), known)))
            return
        position, gateway = _read(conn, purchase, invoice, opened)
        asked = entries(wanted, position)
        assert gateway is not None, "what has no payment is refused"
        refunds.check_item(gateway, position, asked)
        if dry_run:
            _dry_run(run, position, asked, wanted)
            return
        run.confirm(_question(position, asked, gateway.mode), yes=yes)
        refund = refunds.plan(conn, position, asked, wanted)

        def unanswered(seconds: float) -> None:
            run.console.info("Stripe has not answered; looking for the refund")
            time.sleep(seconds)

        finish(
            run, told(run, refund, lambda: refunds.carry_out(conn, gateway, refund, position, unanswered=unanswered))
        )


def told(run: Run, refund: Refund, work: Callable[[], Outcome]) -> Outcome:
    """Do it; who interrupts it hears which refund is left to be settled."""
    try:
        return work()
    except KeyboardInterrupt:
        run.console.warn(f"refund {refund.id} is left unsettled; `stackctl refunds resume {refund.id}` goes on with it")
        raise


def finish(run: Run, outcome: Outcome) -> None:
    refund, problem = outcome.refund, outcome.problem
    if problem is not None:
        run.console.warn(problem.message)
    code = 0 if refund.status == "succeeded" and refund.revoked else UNSETTLED if refund.holds_money else REFUSED
    run.finish({"refund": document(refund)}, lambda: _show_outcome(run, outcome), ok=code == 0, exit_code=code)


def document(refund: Refund) -> dict[str, Any]:
    from stackctl.payments.money import decimal

    return {
        "id": refund.id,
        "status": refund.status,
        "tenancy": refund.tenancy,
        "purchase_type": refund.purchase_type,
        "purchase_id": refund.purchase_id,
        "amount_usd": decimal(refund.amount, refund.currency),
        "entries": refund.entries,
        "stripe_refund_id": refund.stripe_refund,
        "failure": refund.failure,
        "created_at": refund.created_at,
        "customer": refund.customer,
        "payment_intent": refund.intent,
        "invoice": refund.invoice,
        "reason": refund.params.get("reason"),
        "note": refund.note,
        "request_id": refund.request_id,
        "created_by": refund.created_by,
        "submitted_at": refund.submitted_at,
        "revoked": refund.revoked,
    }


def _show_outcome(run: Run, outcome: Outcome) -> None:
    from stackctl.payments.money import shown

    refund, line = outcome.refund, run.console.line
    money, resume = shown(refund.amount, refund.currency), f"run `stackctl refunds resume {refund.id}`"
    match refund.status:
        case "succeeded":
            is_taken = refund.revoked and (not refund.subscription or refund.quantity_left is not None)
            taken = f", {refund.quantity} revoked" if refund.quantity and is_taken else ""
            if taken and refund.quantity_left == 0:
                taken += "; the subscription ends with its period"
            line(f"refunded {money}{taken}  ({refund.stripe_refund})", "green")
            if not refund.revoked:
                line(f"the subscription's quantity is not lowered yet: {resume}", "yellow")
        case "pending":
            line(f"{money} are on their way, which may take days: Stripe says pending  ({refund.stripe_refund})")
            line(f"to see what became of it, {resume}")
        case "planned" | "submitted":
            line(f"whether {money} were refunded is not known yet: {resume}", "yellow")
        case "failed" | "canceled":
            line(f"not refunded: {refund.failure or f'Stripe says {refund.status}'}", "red")
            if refund.stays_revoked:
                line(f"{refund.quantity} stay revoked; give the money back alone, with --amount", "yellow")
    line(f"refund {refund.id}")


def _wanted(full: bool, amount: str | None, quantity: int | None, given: list[str] | None) -> tuple[Entry, ...] | None:
    from stackctl.payments.money import cents
    from stackctl.payments.wanted import GRANT, Entry

    if [full, amount is not None, bool(given)].count(True) != 1:
        raise UsageError(
            "say what to refund: one of --full, --amount and --entry", code="usage", hint="e.g. --amount 5.00"
        )
    if quantity is not None and amount is None:
        raise UsageError("--quantity goes with --amount", code="usage", hint="or write --entry INDEX:QTY:USD")
    if full:
        return None
    if amount is not None:
        return (Entry(GRANT, quantity or 0, cents(amount)),)
    found: list[Entry] = []
    for text in given or ():
        match = _ENTRY.fullmatch(text)
        if match is None:
            raise UsageError(f"{text[:40]!r} is not INDEX:QTY:USD", code="schema-error", hint="e.g. --entry 0:1:19.99")
        found.append(Entry(int(match[1]), int(match[2]), cents(match[3])))
    return tuple(found)


def _tenancy(given: str | None) -> UUID | None:
    return uuid_argument(given) if given else None


def _read(
    conn: Connection, purchase: Purchase, invoice: str | None, opened: Callable[[str], Gateway]
) -> tuple[Position, Gateway | None]:
    from stackctl.payments import connection, position
    from stackctl.tenancy_config import read

    if invoice is not None and purchase.type != "subscription":
        raise UsageError("--invoice goes with a subscription; this is a one-time purchase", code="usage")
    gateways: list[Gateway] = []

    def on() -> tuple[str, Gateway]:
        account = connection.account(conn, read(conn, purchase.tenancy))
        gateways.append(opened(account))
        return account, gateways[0]

    found = position.read(conn, purchase, invoice, on)
    return found, gateways[0] if gateways else None


def _question(position: Position, asked: tuple[Entry, ...], mode: str) -> str:
    from stackctl.payments.money import shown

    purchase = position.purchase
    money = shown(sum(entry.amount for entry in asked), "usd")
    taken = sum(entry.quantity for entry in asked)
    revoking = f", and revoke {taken} of {position.bought}" if taken else ""
    kind = "test money" if mode == "test" else "REAL MONEY"
    return f"Refund {money} ({kind}) of {purchase.name} to {purchase.customer_type} {purchase.customer}{revoking}?"


def _dry_run(run: Run, position: Position, asked: tuple[Entry, ...], wanted: Wanted) -> None:
    from stackctl.payments.refunds import key_of
    from stackctl.payments.wanted import request

    id_ = "<id of the refund>"
    taken = sum(entry.quantity for entry in asked)
    requests: list[dict[str, Any]] = [
        {
            "method": "POST",
            "path": "/v1/refunds",
            "headers": {"Stripe-Account": position.account, "Idempotency-Key": key_of(id_)},
            "params": request(position, asked, wanted, id_),
        }
    ]
    if position.purchase.type == "subscription" and taken:
        left = position.quantity_left - taken
        item = {"items": [{"id": "<its item>", "quantity": left}], "proration_behavior": "none"}
        requests.append(
            {
                "method": "POST",
                "path": f"/v1/subscriptions/{position.purchase.stripe_id}",
                "headers": {"Stripe-Account": position.account},
                "params": item if left else {"cancel_at_period_end": True},
            }
        )
    entries = [entry.document for entry in asked]

    def show() -> None:
        for one in requests:
            run.console.line(f"{one['method']} {one['path']}")
            for name, value in one["headers"].items():
                run.console.line(f"{name}: {value}")
            run.console.line(json.dumps(one["params"], indent=2))
        run.console.line("nothing was sent")

    run.finish({"dry_run": True, "requests": requests, "entries": entries}, show)


def _preview_document(position: Position) -> dict[str, Any]:
    from stackctl.payments.money import decimal

    purchase, payment = position.purchase, position.payment
    currency = payment.currency if payment else "usd"
    refusal = position.refusal
    entries: list[dict[str, Any]] = [
        {
            "index": 0,
            "type": "product_grant",
            "product_id": purchase.product_id,
            "name": purchase.name,
            "price_id": purchase.price_id,
            "unit_prices": purchase.prices,
            "quantity": position.bought,
            "quantity_left": position.quantity_left,
        }
    ]
    if payment:
        entries.append(
            {
                "index": 1,
                "type": "money_transfer",
                "currency": currency,
                "charged": decimal(position.charged, currency),
                "refunded": decimal(position.refunded, currency),
                "held": decimal(position.held, currency),
                "remaining": decimal(position.remaining, currency),
            }
        )
    return {
        "purchase_type": purchase.type,
        "purchase_id": purchase.id,
        "tenancy": purchase.tenancy,
        "customer": purchase.customer,
        "customer_type": purchase.customer_type,
        "created_at": purchase.created_at,
        "payment_intent": payment.intent if payment else None,
        "invoice": position.invoice,
        "refundable": refusal is None,
        "refusal": {"code": refusal.code, "message": refusal.message} if refusal else None,
        "entries": entries,
        "refunds": [document(one) for one in position.ledger],
    }


def _show_preview(run: Run, position: Position) -> None:
    from stackctl.payments.money import shown

    purchase, payment, line = position.purchase, position.payment, run.console.line
    line(f"{'subscription' if purchase.type == 'subscription' else 'purchase'} {purchase.id}")
    line(f"customer   {purchase.customer_type} {purchase.customer}")
    line(f"bought     {purchase.created_at:%Y-%m-%d %H:%M} UTC")
    if payment:
        line(f"payment    {payment.intent}" + (f", invoice {position.invoice}" if position.invoice else ""))
    prices = ", ".join(f"{value} {currency}" for currency, value in purchase.prices.items())
    rows = [("0", purchase.name, f"{position.bought} at {prices or 'no listed price'}",
             f"{position.quantity_left} left")]  # fmt: skip
    if payment:
        currency = payment.currency
        rows.append(("1", "charge", shown(position.charged, currency), f"{shown(position.remaining, currency)} remain"))
    line()
    run.console.table(("entry", "", "", ""), rows)
    if payment and (position.refunded or position.held):
        line()
        line(f"refunded   {shown(position.refunded, payment.currency)}")
        if position.held:
            line(f"under way  {shown(position.held, payment.currency)}", "yellow")
    for one in position.ledger:
        line(f"           {one.created_at:%Y-%m-%d %H:%M}  {shown(one.amount, one.currency)}  {one.status}  {one.id}")
    line()
    _show_verdict(run, position.refusal, purchase)


def _show_verdict(run: Run, refusal: StackctlError | None, purchase: Purchase) -> None:
    if refusal:
        run.console.line(f"can't be refunded: {refusal.message}", "yellow")
    else:
        run.console.line(f"to refund it: stackctl refunds create {purchase.id} --full | --amount USD")


from stackctl.cli import refunds_ledger  # noqa: E402 after the commands above, so that help lists them first

# Importing it has registered its commands.
ELSEWHERE = (refunds_ledger,)

"""stackctl refunds preview"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackctl.cli.command import Run, command
from stackctl.cli.refunds.shared import (
    Invoice,
    Latest,
    PurchaseId,
    Tenancy,
    find_purchase,
    read_balance,
    refund_document,
)
from stackctl.cli.stripe_options import StripeApiBase, StripeApiKey, prepare_gateway
from stackctl.core.sentences import format_count
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from stackctl.core.errors import StackctlError
    from stackctl.payments.refunds.balance import RefundableBalance


@command(example="stackctl refunds preview 0d4a9a10-5a0b-4d8e-9f2b-1c2d3e4f5a6b")
def preview(
    run: Run,
    id_: PurchaseId,
    invoice: Invoice = None,
    latest: Latest = False,
    tenancy: Tenancy = None,
    stripe_api_key: StripeApiKey = None,
    stripe_api_base: StripeApiBase = None,
) -> None:
    """Show what was bought, charged and refunded, what remains, and why it can't be refunded when it can't.

    Prints a row for each entry of the purchase: what was paid and what is left.
    Exit codes: 0 printed; 2 no such purchase; 4 the database or Stripe can't be reached, or Stripe refuses the key; 5
    the database was never migrated.
    """
    open_gateway = prepare_gateway(run, stripe_api_key, stripe_api_base)
    with run.database() as conn:
        purchase, named_invoice = find_purchase(run, conn, id_, tenancy, invoice, open_gateway, latest=latest)
        balance, _ = read_balance(run, conn, purchase, named_invoice, open_gateway)
    repeat = _command(balance, tenancy)
    run.finish(_preview_document(balance), lambda: _show_preview(run, balance, repeat))


def _command(balance: RefundableBalance, tenancy: str | None) -> str:
    """What refunds this very payment, and no other."""
    invoice = f" --invoice {balance.invoice}" if balance.invoice else ""
    where = f" --tenancy {balance.purchase.tenancy}" if tenancy else ""
    return f"stackctl refunds create {balance.purchase.id}{invoice}{where}"


def _preview_document(balance: RefundableBalance) -> dict[str, Any]:
    from stackctl.payments.money import format_decimal

    purchase, payment = balance.purchase, balance.payment
    currency = payment.currency if payment else "usd"
    refusal = balance.refusal
    entries: list[dict[str, Any]] = [
        {
            "index": 0,
            "type": "product_grant",
            "product_id": purchase.product_id,
            "name": purchase.name,
            "price_id": purchase.price_id,
            "unit_prices": purchase.prices,
            "quantity": balance.bought,
            "quantity_left": balance.quantity_left,
        }
    ]
    if payment:
        entries.append(
            {
                "index": 1,
                "type": "money_transfer",
                "currency": currency,
                "charged": format_decimal(balance.charged, currency),
                "refunded": format_decimal(balance.refunded, currency),
                "held": format_decimal(balance.held, currency),
                "remaining": format_decimal(balance.remaining, currency),
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
        "invoice": balance.invoice,
        "inquiry": bool(payment and payment.inquired),
        "refundable": refusal is None,
        "refusal": {"code": refusal.code, "message": refusal.message} if refusal else None,
        "entries": entries,
        "refunds": [refund_document(one) for one in balance.ledger if balance.is_of_payment(one)],
        "other_refunds": [refund_document(one) for one in balance.ledger if not balance.is_of_payment(one)],
        "invoices": [
            {
                "id": one.id,
                "created_at": one.created_at,
                "status": one.status,
                "amount": None if one.amount is None else format_decimal(one.amount, currency),
                "shown": one.id == balance.invoice,
            }
            for one in balance.invoices
        ],
    }


def _show_preview(run: Run, balance: RefundableBalance, repeat: str) -> None:
    from stackctl.payments.money import format_money

    purchase, payment, line = balance.purchase, balance.payment, run.console.line
    line(f"{'subscription' if purchase.type == 'subscription' else 'purchase'} {purchase.id}")
    line(f"customer   {purchase.customer_type} {purchase.customer}")
    line(f"bought     {purchase.created_at:%Y-%m-%d %H:%M} UTC")
    if payment:
        of = f", invoice {balance.invoice}" if balance.invoice else ""
        line(f"payment    {payment.intent}{of}, {payment.created_at:%Y-%m-%d}")
    prices = ", ".join(f"{value} {currency}" for currency, value in purchase.prices.items())
    rows = [("0", purchase.name, f"{balance.bought} at {prices or 'no listed price'}",
             f"{balance.quantity_left} left")]  # fmt: skip
    if payment:
        currency = payment.currency
        rows.append(
            (
                "1",
                "charge",
                format_money(balance.charged, currency),
                f"{format_money(balance.remaining, currency)} remain",
            )
        )
    line()
    run.console.table(("entry", Column("what", folds=True), Column("paid", folds=True), "left"), rows)
    if payment and (balance.refunded or balance.held):
        line()
        line(f"refunded   {format_money(balance.refunded, payment.currency)}")
        if balance.held:
            line(f"under way  {format_money(balance.held, payment.currency)}", "yellow")
    others = [one for one in balance.ledger if not balance.is_of_payment(one)]
    for one in (one for one in balance.ledger if balance.is_of_payment(one)):
        money = format_money(one.amount, one.currency)
        line(f"           {one.created_at:%Y-%m-%d %H:%M}  {money}  {one.status}  {one.id}")
    if others:
        line(f"other payments of it have {format_count(len(others), 'refund', 'refunds')}: "
             f"stackctl refunds list --purchase {purchase.id}")  # fmt: skip
    if len(balance.invoices) > 1:
        line()
        _show_invoices(run, balance)
    line()
    _show_verdict(run, balance.refusal, repeat)


def _show_invoices(run: Run, balance: RefundableBalance) -> None:
    from stackctl.payments.money import format_money

    currency = balance.payment.currency if balance.payment else "usd"
    rows = [
        (
            one.id,
            f"{one.created_at:%Y-%m-%d}",
            "" if one.amount is None else format_money(one.amount, currency),
            one.status or "",
            "this one" if one.id == balance.invoice else "the first" if one.is_first else "",
        )
        for one in balance.invoices
    ]
    run.console.table(("invoice", "of", Column("amount", right=True), "state", ""), rows)


def _show_verdict(run: Run, refusal: StackctlError | None, repeat: str) -> None:
    if refusal:
        run.console.line(f"can't be refunded: {refusal.message}", "yellow")
    else:
        # A line each, to be copied as it is.
        run.console.line(f"to refund it: {repeat} --full")
        run.console.line(f"a part of it: {repeat} --amount AMOUNT")

"""Purchases and subscriptions as the operated database has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from psycopg.rows import class_row

from stackctl.core.errors import StateError, UsageError
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from stackctl.postgres.connect import Connection

PurchaseType = Literal["one-time-purchase", "subscription"]
_SQL = load_statements(__file__)
LOCK_TIMEOUT = "10s"
_LOCK = "SELECT set_config('lock_timeout', %(timeout)s, TRUE)"


@dataclass(frozen=True)
class Purchase:
    """`quantity`: of a one-time purchase what was bought, of a subscription what it has now. `revoked`: all of it is
    taken back, or ends with the period. `stripe_id`: of the payment intent, or of the subscription."""

    type: PurchaseType
    tenancy: UUID
    id: UUID
    customer: str
    customer_type: str
    product: Any
    product_id: str | None
    price_id: str | None
    quantity: int
    source: str
    created_at: datetime
    refunded_at: datetime | None
    revoked: bool
    stripe_id: str | None

    @property
    def name(self) -> str:
        return product_name(self.product, self.product_id)

    @property
    def prices(self) -> dict[str, str]:
        """Of one of it, in dollars and the like, by currency."""
        prices = self.product.get("prices") if isinstance(self.product, dict) else None
        price = prices.get(self.price_id) if isinstance(prices, dict) else None
        return amounts_by_currency(price) if isinstance(price, dict) else {}


def product_name(product: Any, product_id: str | None) -> str:
    """For people; what stands in the column is the application's, and may be anything."""
    named = product.get("displayName") if isinstance(product, dict) else None
    return str(named or product_id or "a product without a name")


def amounts_by_currency(price: Mapping[str, Any]) -> dict[str, str]:
    """What a price says by currency, among other things."""
    return {
        name: str(value)
        for name, value in price.items()
        if len(name) == 3 and name.isupper() and isinstance(value, str | int | float)
    }


def find_purchase(conn: Connection, id_: UUID, tenancy: UUID | None = None) -> Purchase:
    """The purchase or subscription of this id. Raises UsageError (`purchase-not-found`, `usage`)."""
    found: list[Purchase] = []
    with conn.cursor(row_factory=class_row(Purchase)) as cursor:
        for statement in ("find_one_time_purchase", "find_subscription"):
            found += cursor.execute(_SQL[statement], {"id": id_, "tenancy": tenancy}).fetchall()
    if not found:
        where = f" in tenancy {tenancy}" if tenancy else ""
        raise UsageError(
            f"there is no purchase or subscription {id_}{where}",
            code="purchase-not-found",
            hint="`stackctl payments products --customer ID` shows what a customer bought",
        )
    if len(found) > 1:
        tenancies = sorted({str(one.tenancy) for one in found})
        raise UsageError(
            [f"{id_} is the id of several purchases or subscriptions, of", *(f"  tenancy {one}" for one in tenancies)],
            code="usage",
            hint="say which with --tenancy"
            if len(tenancies) == len(found)
            else "a purchase and a subscription of one tenancy can't be told apart; refund it in Stripe's dashboard",
        )
    return found[0]


def find_invoice(conn: Connection, purchase: Purchase, named: str | None) -> str:
    """Stripe's id of the subscription's creation invoice, or of the named one. Raises UsageError, StateError."""
    key = {"tenancy": purchase.tenancy, "subscription": purchase.stripe_id}
    row = conn.execute(_SQL["find_invoice"], key | {"invoice": named}).fetchone()
    if row is not None:
        return row[0]
    if named is None:
        raise StateError(
            f"the creation invoice of subscription {purchase.id} is not in the database",
            code="invoice-not-found",
            hint="name an invoice with --invoice",
        )
    known = [row[0] for row in conn.execute(_SQL["list_last_invoices"], key)]
    raise UsageError(
        f"subscription {purchase.id} has no invoice {named}",
        code="invoice-not-found",
        hint=f"its last ones: {', '.join(known)}" if known else "none of its invoices is in the database",
    )


@dataclass(frozen=True)
class Invoice:
    """Of a subscription, as the database has it. `amount`: in the smallest unit; `is_first`: its creation's."""

    id: str
    created_at: datetime
    status: str | None
    amount: int | None
    is_first: bool


def list_invoices(conn: Connection, purchase: Purchase) -> Sequence[Invoice]:
    """Of a subscription, the newest first; of another purchase none."""
    with conn.cursor(row_factory=class_row(Invoice)) as cursor:
        key = {"tenancy": purchase.tenancy, "subscription": purchase.stripe_id}
        return cursor.execute(_SQL["list_invoices"], key).fetchall() if purchase.type == "subscription" else ()


def find_latest_invoice(conn: Connection, purchase: Purchase) -> str:
    """The last one that was paid, and not with nothing. Raises UsageError `usage`, StateError `invoice-not-found`."""
    if purchase.type != "subscription":
        raise UsageError("--latest goes with a subscription; this is a one-time purchase", code="usage")
    paid = [one.id for one in list_invoices(conn, purchase) if one.status == "paid" and one.amount != 0]
    if not paid:
        raise StateError(
            f"subscription {purchase.id} has no paid invoice in the database",
            code="invoice-not-found",
            hint="name an invoice with --invoice",
        )
    return paid[0]


def find_intents_of_others(conn: Connection, tenancy: UUID, intents: Sequence[str]) -> set[str]:
    """Those of the payment intents that are known as another tenancy's."""
    return {row[0] for row in conn.execute(_SQL["find_intents_of_others"], {"tenancy": tenancy, "intents": intents})}


def lock_purchase(conn: Connection, type_: PurchaseType, tenancy: UUID, id_: UUID) -> None:
    """Hold the purchase's row to the end of the transaction: who plans or settles its refunds is alone."""
    conn.execute(_LOCK, {"timeout": LOCK_TIMEOUT})
    conn.execute(_SQL["lock_subscription" if type_ == "subscription" else "lock_one_time_purchase"],
                 {"tenancy": tenancy, "id": id_})  # fmt: skip


def mark_refunded(conn: Connection, type_: PurchaseType, tenancy: UUID, id_: UUID, invoice: str | None) -> None:
    """Nothing remains of its money; of a subscription: of what its creation cost, and not of a renewal."""
    statement = "mark_subscription_refunded" if type_ == "subscription" else "mark_one_time_purchase_refunded"
    conn.execute(_SQL[statement], {"tenancy": tenancy, "id": id_, "invoice": invoice})


def unmark_refunded(conn: Connection, type_: PurchaseType, tenancy: UUID, id_: UUID, invoice: str | None) -> None:
    """The money came back: the bank did not take it."""
    statement = "unmark_subscription_refunded" if type_ == "subscription" else "unmark_one_time_purchase_refunded"
    conn.execute(_SQL[statement], {"tenancy": tenancy, "id": id_, "invoice": invoice})


def mark_revoked(conn: Connection, tenancy: UUID, id_: UUID) -> None:
    """Nothing is left of a one-time purchase."""
    conn.execute(_SQL["mark_one_time_purchase_revoked"], {"tenancy": tenancy, "id": id_})


def lower_quantity(conn: Connection, tenancy: UUID, id_: UUID, left: int, *, ends_now: bool = False) -> None:
    """What is left of a subscription, unless it has less; with nothing left it ends with its period, or now."""
    statement = "end_subscription" if ends_now else "lower_subscription_quantity"
    conn.execute(_SQL[statement], {"tenancy": tenancy, "id": id_, "left": left})

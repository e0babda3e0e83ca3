"""Products of a tenancy's configuration, and which of them a customer has and may buy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from psycopg.rows import class_row

from stackctl.backend.users import find_user
from stackctl.core.errors import UsageError
from stackctl.payments.connection import ledger_exists
from stackctl.payments.purchases import product_name
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from stackctl.backend.tenancies import ConfigLayers
    from stackctl.postgres.connect import Connection

CustomerType = Literal["user", "team", "custom"]
INCLUDED = "include-by-default"  # in place of prices: whoever is of the type has it
REPLACEABLE = ("active", "trialing")  # statuses of subscriptions that another one of their line takes the place of
_SQL = load_statements(__file__, "purchases")


@dataclass(frozen=True)
class Product:
    """`prices`: by id, each as the configuration has it, e.g. `{"USD": "9.99", "interval": [1, "month"]}`.

    `add_on_to`: products of which the customer must own one. `line`: the product line, of which one is owned at a time.
    """

    id: str
    name: str
    customer_type: str
    prices: dict[str, dict[str, Any]]
    included: bool
    server_only: bool
    stackable: bool
    add_on_to: tuple[str, ...] = ()
    line: str | None = None


@dataclass(frozen=True)
class Customer:
    """Whoever buys: by the id of a user or team, or by one of the application's own."""

    id: str
    type: CustomerType


@dataclass(frozen=True)
class CustomerPurchase:
    """A purchase or subscription of a customer; `owned` is false once it is revoked or has ended.

    `quantity`: what was bought once, or what a subscription has now; `revoked`: how many of the former were taken back.
    """

    id: UUID
    type: str
    product_id: str | None
    product: Any
    quantity: int
    status: str
    owned: bool
    created_at: datetime
    refunded_at: datetime | None
    ends_at: datetime | None
    revoked: int = 0

    @property
    def name(self) -> str:
        return product_name(self.product, self.product_id)

    @property
    def line(self) -> str | None:
        """The product line that it was bought in."""
        return _find_line(self.product) if isinstance(self.product, dict) else None


@dataclass(frozen=True)
class Verdict:
    """Whether a customer may buy a product: `why_not` is None where it may. `replaces`: what would end by it."""

    why_not: str | None
    replaces: list[CustomerPurchase] = field(default_factory=list[CustomerPurchase])


def list_products(layers: ConfigLayers, customer_type: str | None) -> Sequence[Product]:
    """Those of the configuration, in order of their ids; of a type of customer, or all."""
    configured = layers.get("payments", "products")
    found = [
        _to_product(id_, one)
        for id_, one in sorted((configured if isinstance(configured, dict) else {}).items())
        if isinstance(one, dict)
    ]
    return [one for one in found if customer_type in (None, one.customer_type)]


def _to_product(id_: str, one: Mapping[str, Any]) -> Product:
    prices = one.get("prices")
    return Product(
        id=id_,
        name=str(one.get("displayName") or id_),
        customer_type=str(one.get("customerType") or ""),
        prices={key: price for key, price in (prices if isinstance(prices, dict) else {}).items()
                if isinstance(price, dict)},
        included=prices == INCLUDED,
        server_only=one.get("serverOnly") is True,
        stackable=one.get("stackable") is True,
        add_on_to=tuple(sorted(bases)) if isinstance(bases := one.get("isAddOnTo"), dict) else (),
        line=_find_line(one),
    )  # fmt: skip


def _find_line(product: Mapping[str, Any]) -> str | None:
    line = product.get("productLineId")
    return line if isinstance(line, str) and line else None


def find_customer(conn: Connection, tenancy: UUID, named: str, type_: CustomerType | None) -> Customer:
    """The user or team of this id, the user with this address, or whoever has bought something by this id.

    An id that nobody knows is a custom customer's, if it is said to be one with `type_`. Raises UsageError
    (`unknown-customer`, `unknown-user`, `ambiguous-user`).
    """
    if "@" in named and type_ in (None, "user"):
        return Customer(str(find_user(conn, named, tenancy).id), "user")
    if type_ == "custom":
        return Customer(named, type_)
    try:
        id_ = UUID(named)
    except ValueError:
        id_ = None
    row = conn.execute(_SQL["find_customer_type"], {"tenancy": tenancy, "id": id_}).fetchone() if id_ else None
    ids = [named, *([str(id_)] if id_ else [])]
    if row is None or row[0] is None:
        row = conn.execute(_SQL["find_type_bought_as"], {"tenancy": tenancy, "ids": ids}).fetchone()
    found: CustomerType | None = row[0] if row else None
    if found is None:
        raise UsageError(
            f"there is no {type_ or 'user or team'} {named} in tenancy {tenancy}, and nothing was bought by that id",
            code="unknown-customer",
            hint="`stackctl users show ADDRESS` finds a user; --customer-type custom takes an id of your own as it is",
        )
    if type_ not in (None, found):
        raise UsageError(
            f"there is no {type_} {named} in tenancy {tenancy}", code="unknown-customer", hint=f"it is a {found}"
        )
    return Customer(named if found == "custom" or id_ is None else str(id_), found)


def list_purchases(conn: Connection, tenancy: UUID, customer: Customer) -> Sequence[CustomerPurchase]:
    """All that the customer has bought, the newest first."""
    with conn.cursor(row_factory=class_row(CustomerPurchase)) as cursor:
        found = cursor.execute(
            _SQL["list_purchases"], {"tenancy": tenancy, "customer": customer.id, "type": customer.type}
        ).fetchall()
    if not found or not ledger_exists(conn):
        return found
    asked = {"tenancy": tenancy, "purchases": [one.id for one in found]}
    revoked: dict[UUID, int] = dict(conn.execute(_SQL["list_revoked_quantities"], asked).fetchall())
    return [replace(one, revoked=revoked.get(one.id, 0) if one.type != "subscription" else 0) for one in found]


def judge_purchase(product: Product, bought: Sequence[CustomerPurchase], *, blocked: bool) -> Verdict:
    """Whether the customer may buy it, as the backend decides. `blocked`: new purchases are switched off.

    Of a product line one product is owned at a time. Another one takes the place of a subscription that is active; a
    purchase that was paid once stands in its way.
    """
    owned = [one for one in bought if one.owned]
    ids = {one.product_id for one in owned}
    if product.included:
        return Verdict("included for everyone")
    if not product.prices:
        return Verdict("it has no price")
    if product.server_only:
        return Verdict("only the server can grant it")
    if blocked:
        return Verdict("new purchases are blocked")
    if not product.stackable and product.id in ids:
        return Verdict("owned already, and not stackable")
    if product.add_on_to and not ids.intersection(product.add_on_to):
        return Verdict(f"an add-on to {' or '.join(product.add_on_to)}, which is not owned")
    in_line = [one for one in owned if product.line is not None and one.line == product.line]
    replaced = [
        one
        for one in in_line
        if one.type == "subscription" and one.status in REPLACEABLE and one.product_id not in product.add_on_to
    ]
    if in_line and not replaced:
        return Verdict(f"{in_line[0].name} of the same product line is owned")
    return Verdict(None, replaced)

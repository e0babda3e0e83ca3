"""Products of a tenancy's configuration, and which of them a customer has and may buy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from psycopg.rows import class_row

from stackctl.core.errors import UsageError
from stackctl.payments.purchases import product_name
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from stackctl.backend.tenancies import ConfigLayers
    from stackctl.postgres.connect import Connection

CustomerType = Literal["user", "team", "custom"]
INCLUDED = "include-by-default"  # in place of prices: whoever is of the type has it
_SQL = load_statements(__file__, "purchases")


@dataclass(frozen=True)
class Product:
    """`prices`: by id, each as the configuration has it, e.g. `{"USD": "9.99", "interval": [1, "month"]}`."""

    id: str
    name: str
    customer_type: str
    prices: dict[str, dict[str, Any]]
    included: bool
    server_only: bool
    stackable: bool


@dataclass(frozen=True)
class CustomerPurchase:
    """A purchase or subscription of a customer; `owned` is false once it is revoked or has ended."""

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

    @property
    def name(self) -> str:
        return product_name(self.product, self.product_id)


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
    )  # fmt: skip


def find_customer_type(conn: Connection, tenancy: UUID, customer: str, named: CustomerType | None) -> CustomerType:
    """Whether the customer is a user or a team; any other id is a custom one. Raises UsageError `unknown-customer`."""
    row = conn.execute(_SQL["find_customer_type"], {"tenancy": tenancy, "id": customer}).fetchone()
    found: CustomerType = (row[0] if row else None) or "custom"
    if named not in (None, "custom", found):
        raise UsageError(
            f"there is no {named} {customer} in tenancy {tenancy}",
            code="unknown-customer",
            hint=f"it is a {found}" if found != "custom" else "a customer that is neither user nor team is custom",
        )
    return named or found


def list_purchases(conn: Connection, tenancy: UUID, customer: str, type_: CustomerType) -> Sequence[CustomerPurchase]:
    """All that the customer has bought, the newest first."""
    with conn.cursor(row_factory=class_row(CustomerPurchase)) as cursor:
        return cursor.execute(
            _SQL["list_purchases"], {"tenancy": tenancy, "customer": customer, "type": type_}
        ).fetchall()


def find_obstacle(product: Product, bought: Sequence[CustomerPurchase]) -> str | None:
    """Why the customer can't buy it; None where it can."""
    if product.included:
        return "included for everyone"
    if not product.prices:
        return "it has no price"
    if product.server_only:
        return "only the server can grant it"
    if not product.stackable and any(one.owned and one.product_id == product.id for one in bought):
        return "owned already, and not stackable"
    return None

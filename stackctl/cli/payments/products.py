"""stackctl payments products"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.arguments import parse_text_option
from stackctl.cli.command import Run, command
from stackctl.cli.stripe_options import Tenancy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stackctl.payments.products import CustomerPurchase


class CustomerTypeName(Enum):
    user = "user"
    team = "team"
    custom = "custom"


@command(
    example="stackctl payments products --tenancy acme --customer-type team\n"
    "stackctl payments products --tenancy acme --customer ada18150-1210-4185-8ada-000000000001",
    lists=True,
)
def products(
    run: Run,
    customer_type: Annotated[
        CustomerTypeName | None, typer.Option("--customer-type", help="For users, for teams, or for your own ids.")
    ] = None,
    customer: Annotated[
        str | None, typer.Option("--customer", metavar="ID", help="Show what this customer owns and may buy.")
    ] = None,
    tenancy: Tenancy = None,
) -> None:
    """List the products that a tenancy sells; of a customer, what it owns and may buy. Stripe is not asked.

    Exit codes: 0 listed; 2 no such tenancy or customer.
    """
    from stackctl.backend.tenancies import choose_tenancy, read_layers
    from stackctl.payments import products as found

    type_, customer = customer_type.value if customer_type else None, parse_text_option(customer, "--customer")
    with run.database() as conn:
        layers = read_layers(conn, choose_tenancy(conn, tenancy))
        if customer is not None:
            type_ = found.find_customer_type(conn, layers.tenancy, customer, type_)
        bought = found.list_purchases(conn, layers.tenancy, customer, type_) if customer is not None and type_ else []
    sold = found.list_products(layers, type_)
    document: dict[str, Any] = {
        "tenancy": layers.tenancy,
        "customer": customer,
        "customer_type": type_,
        "products": [
            {
                "id": one.id,
                "name": one.name,
                "customer_type": one.customer_type,
                "prices": one.prices,
                "server_only": one.server_only,
                "stackable": one.stackable,
            }
            | ({} if customer is None else _may_buy(found.find_obstacle(one, bought)))
            for one in sold
        ],
    }
    if customer is not None:
        document["purchases"] = [
            {
                "id": one.id,
                "type": one.type,
                "product_id": one.product_id,
                "name": one.name,
                "quantity": one.quantity,
                "status": one.status,
                "owned": one.owned,
                "created_at": one.created_at,
                "refunded_at": one.refunded_at,
                "ends_at": one.ends_at,
            }
            for one in bought
        ]

    if customer is not None and not run.is_for_script:
        _show_bought(run, bought)
    rows = [
        (one.id, one.name, one.customer_type, "included" if one.included else _prices(one.prices))
        + (() if customer is None else (found.find_obstacle(one, bought) or "yes",))
        for one in sold
    ]
    run.finish_list(
        document,
        ("product", "name", "for", "price") + (() if customer is None else ("may buy",)),
        rows,
        empty="no products" + (f" for a {type_} customer" if type_ else ""),
        folds=("name", "price", "may buy"),
        spare=("for", "name"),
    )


def _show_bought(run: Run, bought: Sequence[CustomerPurchase]) -> None:
    if not bought:
        run.console.line("has bought nothing")
    else:
        rows = [
            (
                str(one.id),
                one.name,
                str(one.quantity),
                one.status + (f", ends {one.ends_at:%Y-%m-%d}" if one.ends_at and one.owned else ""),
                one.created_at,
                one.refunded_at,
            )
            for one in bought
        ]
        run.console.table(
            ("purchase", "product", "quantity", "status", "bought", "refunded"),
            rows,
            right=("quantity",),
            folds=("product", "status"),
            spare=("refunded", "bought"),
        )
    run.console.line()


def _may_buy(why_not: str | None) -> dict[str, Any]:
    return {"may_buy": why_not is None, "why_not": why_not}


def _prices(prices: Mapping[str, Mapping[str, Any]]) -> str:
    """`9.99 USD every month or 99 USD every year`."""
    return " or ".join(filter(None, map(_price, prices.values()))) or "none"


def _price(price: Mapping[str, Any]) -> str:
    from stackctl.payments.purchases import amounts_by_currency

    money = ", ".join(f"{value} {name}" for name, value in amounts_by_currency(price).items())
    match price.get("interval"):
        case [1, str(unit)]:
            return f"{money} every {unit}"
        case [number, str(unit)]:
            return f"{money} every {number} {unit}s"
        case _:
            return money

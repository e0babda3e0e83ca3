"""stackctl payments products"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.arguments import parse_text_option
from stackctl.cli.command import Run, command
from stackctl.cli.stripe_options import Tenancy
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stackctl.payments.products import CustomerPurchase, Verdict


class CustomerTypeName(Enum):
    user = "user"
    team = "team"
    custom = "custom"


@command(
    example="stackctl payments products --tenancy acme --customer-type team\n"
    "stackctl payments products --tenancy acme \\\n    --customer ada18150-1210-4185-8ada-000000000001",
    lists=True,
)
def products(
    run: Run,
    customer_type: Annotated[
        CustomerTypeName | None, typer.Option("--customer-type", help="For users, for teams, or for your own ids.")
    ] = None,
    customer: Annotated[
        str | None,
        typer.Option("--customer", metavar="ID", help="What it owns and may buy; a user may be named by address."),
    ] = None,
    tenancy: Tenancy = None,
) -> None:
    """List the products that a tenancy sells; of a customer, what it owns and may buy. Stripe is not asked.

    Prints a row for each product: for whom, and the price.
    Exit codes: 0 printed; 2 no such tenancy or customer; 4 the operated database can't be reached; 5 it was never
    migrated.
    """
    from stackctl.backend.tenancies import choose_tenancy, read_layers
    from stackctl.payments import products as found

    type_, customer = customer_type.value if customer_type else None, parse_text_option(customer, "--customer")
    with run.database() as conn:
        layers = read_layers(conn, choose_tenancy(conn, tenancy))
        buyer = None if customer is None else found.find_customer(conn, layers.tenancy, customer, type_)
        bought = [] if buyer is None else found.list_purchases(conn, layers.tenancy, buyer)
    type_ = buyer.type if buyer is not None else type_
    sold = found.list_products(layers, type_)
    blocked = layers.get("payments", "blockNewPurchases") is True
    verdicts = {one.id: found.judge_purchase(one, bought, blocked=blocked) for one in sold}
    document: dict[str, Any] = {
        "tenancy": layers.tenancy,
        "customer": None if buyer is None else buyer.id,
        "customer_type": type_,
        "products": [
            {
                "id": one.id,
                "name": one.name,
                "customer_type": one.customer_type,
                "prices": one.prices,
                "server_only": one.server_only,
                "stackable": one.stackable,
                "add_on_to": one.add_on_to,
                "product_line": one.line,
            }
            | ({} if buyer is None else _may_buy(verdicts[one.id]))
            for one in sold
        ],
    }
    if buyer is not None:
        document["purchases"] = [
            {
                "id": one.id,
                "type": one.type,
                "product_id": one.product_id,
                "name": one.name,
                "quantity": one.quantity,
                "revoked_quantity": one.revoked,
                "status": one.status,
                "owned": one.owned,
                "created_at": one.created_at,
                "refunded_at": one.refunded_at,
                "ends_at": one.ends_at,
            }
            for one in bought
        ]

    if buyer is not None and not run.is_for_script:
        _show_bought(run, bought)
    rows = [
        (one.id, one.name, one.customer_type, "included" if one.included else _prices(one.prices))
        + (() if buyer is None else (_tell(verdicts[one.id]),))
        for one in sold
    ]
    run.finish_list(
        document,
        (
            "product",
            Column("name", folds=True, spare=2),
            Column("for", spare=1),
            Column("price", folds=True),
            *(() if buyer is None else (Column("may buy", folds=True),)),
        ),
        rows,
        empty="no products" + (f" for a {type_} customer" if type_ else ""),
    )


def _show_bought(run: Run, bought: Sequence[CustomerPurchase]) -> None:
    if not bought:
        run.console.line("has bought nothing")
    else:
        rows = [
            (
                str(one.id),
                one.name,
                _quantity(one),
                one.status + (f", ends {one.ends_at:%Y-%m-%d}" if one.ends_at and one.owned else ""),
                one.created_at,
                one.refunded_at,
            )
            for one in bought
        ]
        run.console.table(
            (
                "purchase",
                Column("product", folds=True),
                Column("quantity", right=True, folds=True),
                Column("status", folds=True),
                Column("bought", spare=2),
                Column("refunded", spare=1),
            ),
            rows,
        )
    run.console.line()


def _may_buy(verdict: Verdict) -> dict[str, Any]:
    return {
        "may_buy": verdict.why_not is None,
        "why_not": verdict.why_not,
        "replaces": [one.id for one in verdict.replaces],
    }


def _tell(verdict: Verdict) -> str:
    if verdict.why_not is not None:
        return verdict.why_not
    return f"yes, replaces {', '.join(one.name for one in verdict.replaces)}" if verdict.replaces else "yes"


def _quantity(one: CustomerPurchase) -> str:
    """`3 bought, 2 revoked: 1`."""
    if not one.revoked:
        return str(one.quantity)
    return f"{one.quantity} bought, {one.revoked} revoked: {max(one.quantity - one.revoked, 0)}"


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

"""stackctl payments"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command, group, text_option, uuid_argument
from stackctl.cli.payments_common import ApiBase, ApiKey, Tenancy, connected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stackctl.payments.products import Held

app = group("How a project is connected to Stripe; its test mode and products.", example="stackctl payments status")
apps = {"payments": app}


class Switch(Enum):
    on = "on"
    off = "off"


@command(app, "status", example="stackctl payments status\nstackctl payments status --json")
def status(run: Run, tenancy: Tenancy = None, stripe_api_key: ApiKey = None, stripe_api_base: ApiBase = None) -> None:
    """Show the connected account, what Stripe still waits for, and whether key and project are of one mode.

    Exit codes: 0 shown; 4 Stripe can't be reached or refuses the key; 5 no account is connected.
    """
    from dataclasses import asdict

    from stackctl.payments import connection

    layers, account, gateway = connected(run, tenancy, stripe_api_key, stripe_api_base)
    found = connection.status(gateway, account, layers)
    differ = found.key_mode != found.project_mode

    def show() -> None:
        line = run.console.line
        line(f"account   {found.account}")
        ready = found.status == "connected"
        line(f"status    {'connected' if ready else 'setup incomplete'}", None if ready else "yellow")
        for what in found.due:
            line(f"          due: {what}", "yellow")
        line(f"charges   {'enabled' if found.charges_enabled else 'not enabled'}")
        line(f"payouts   {'enabled' if found.payouts_enabled else 'not enabled'}")
        line(f"modes     key {found.key_mode}, project {found.project_mode}")
        if differ:
            run.console.warn(f"the key is a {found.key_mode} key, and the project is in {found.project_mode} mode")

    run.finish({**asdict(found), "modes_differ": differ}, show)


@command(app, "test-mode", example="stackctl payments test-mode\nstackctl payments test-mode off --dry-run")
def test_mode(
    run: Run,
    state: Annotated[Switch | None, typer.Argument(metavar="[on|off]", help="None: show it.")] = None,
    tenancy: Tenancy = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
) -> None:
    """Show or switch a tenancy's test mode, in which purchases cost nothing. Only its own key is written.

    Exit codes: 0 shown or done, or nothing to change; 2 no such tenancy; 5 not confirmed, or the configuration was
    changed by somebody else meanwhile.
    """
    from stackctl.payments import connection
    from stackctl.sync.pipeline import Pipeline
    from stackctl.tenancy_config import chosen, read

    with Pipeline(run.settings).session() as conn:
        layers = read(conn, chosen(conn, uuid_argument(tenancy) if tenancy else None))
        before = connection.test_mode(layers)
        after = before if state is None else state is Switch.on
        if after != before and not dry_run:
            what = "Purchases cost nothing from now on" if after else "Purchases cost real money from now on"
            run.confirm(f"Switch test mode {state.value if state else ''} for {layers.tenancy}? {what}.", yes=yes)
            connection.set_test_mode(conn, layers, after)
    document = {"tenancy": layers.tenancy, "test_mode": before if dry_run else after, "changed": after != before}

    def show() -> None:
        if after == before:
            run.console.line(f"test mode is {_on(before)}")
        elif dry_run:
            run.console.line(f"test mode: {_on(before)} -> {_on(after)}; nothing was changed")
        else:
            run.console.line(f"test mode is now {_on(after)}")

    run.finish(document | {"dry_run": dry_run}, show)


class CustomerTypeName(Enum):
    user = "user"
    team = "team"
    custom = "custom"


@command(
    app,
    "products",
    example="stackctl payments products --customer-type team\n"
    "stackctl payments products --customer 0d4a9a10-5a0b-4d8e-9f2b-1c2d3e4f5a6b",
)
def products(
    run: Run,
    customer_type: Annotated[
        CustomerTypeName | None, typer.Option("--customer-type", help="For users, for teams, or for your own ids.")
    ] = None,
    customer: Annotated[
        str | None, typer.Option("--customer", metavar="ID", help="What this one owns, and may buy.")
    ] = None,
    tenancy: Tenancy = None,
) -> None:
    """List the products that a tenancy sells; of a customer, what it owns and may buy. Stripe is not asked.

    Exit codes: 0 listed; 2 no such tenancy or customer.
    """
    from stackctl.payments import products as found
    from stackctl.sync.pipeline import Pipeline
    from stackctl.tenancy_config import chosen, read

    type_, customer = customer_type.value if customer_type else None, text_option(customer, "--customer")
    with Pipeline(run.settings).session() as conn:
        layers = read(conn, chosen(conn, uuid_argument(tenancy) if tenancy else None))
        if customer is not None:
            type_ = found.customer_type(conn, layers.tenancy, customer, type_)
        bought = found.held(conn, layers.tenancy, customer, type_) if customer is not None and type_ else []
    sold = found.products(layers, type_)
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
            | ({} if customer is None else _may_buy(found.why_not(one, bought)))
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

    def show() -> None:
        if customer is not None:
            _show_bought(run, bought)
        rows = [
            (one.id, one.name, one.customer_type, "included" if one.included else _prices(one.prices))
            + (() if customer is None else (found.why_not(one, bought) or "yes",))
            for one in sold
        ]
        if rows:
            columns = ("product", "name", "for", "price") + (() if customer is None else ("may buy",))
            run.console.table(columns, rows)
        else:
            run.console.line("no products" + (f" for a {type_} customer" if type_ else ""))

    run.finish(document, show)


def _show_bought(run: Run, bought: Sequence[Held]) -> None:
    if not bought:
        run.console.line("has bought nothing")
    else:
        rows = [
            (
                str(one.id),
                one.name,
                str(one.quantity),
                one.status + (f", ends {one.ends_at:%Y-%m-%d}" if one.ends_at and one.owned else ""),
                f"{one.created_at:%Y-%m-%d}",
                f"{one.refunded_at:%Y-%m-%d}" if one.refunded_at else "",
            )
            for one in bought
        ]
        run.console.table(
            ("purchase", "product", "quantity", "status", "bought", "refunded"), rows, right=("quantity",)
        )
    run.console.line()


def _may_buy(why_not: str | None) -> dict[str, Any]:
    return {"may_buy": why_not is None, "why_not": why_not}


def _prices(prices: Mapping[str, Mapping[str, Any]]) -> str:
    """`9.99 USD every month or 99 USD every year`."""
    return " or ".join(filter(None, map(_price, prices.values()))) or "none"


def _price(price: Mapping[str, Any]) -> str:
    from stackctl.payments.purchases import amounts

    money = ", ".join(f"{value} {name}" for name, value in amounts(price).items())
    match price.get("interval"):
        case [1, str(unit)]:
            return f"{money} every {unit}"
        case [number, str(unit)]:
            return f"{money} every {number} {unit}s"
        case _:
            return money


def _on(value: bool) -> str:
    return "on" if value else "off"

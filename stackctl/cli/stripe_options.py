"""Options of the commands that call Stripe, and what they begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackctl.backend.tenancies import ConfigLayers
    from stackctl.cli.command import Run
    from stackctl.payments.gateway import Gateway

Tenancy = Annotated[
    str | None, typer.Option("--tenancy", metavar="TENANCY", help="The tenancy; not needed if there is only one.")
]
StripeApiKey = Annotated[
    str | None,
    typer.Option("--stripe-api-key", metavar="KEY", help="The platform's key; better set as STRIPE_API_KEY."),
]
StripeApiBase = Annotated[
    str | None, typer.Option("--stripe-api-base", metavar="URL", help="Another address of Stripe's API.", hidden=True)
]


def prepare_gateway(
    run: Run, key: str | None, base: str | None, take_turn: Callable[[], None] | None = None
) -> Callable[[str], Gateway]:
    """What opens Stripe on a connected account; it raises ConfigError `no-stripe-key`. `take_turn` waits until a call
    may be made: of so many that their progress speaks for itself, nothing is told."""
    tell = run.console.info if take_turn is None else lambda text: None

    def open_gateway(account: str) -> Gateway:
        from stackctl.payments import connection

        gateway = connection.open_gateway(run.settings, account, tell, take_turn or (lambda: None))
        if gateway is None:
            raise ConfigError(
                "no Stripe key is set", code="no-stripe-key", hint="set payments.stripe_api_key, or STRIPE_API_KEY"
            )
        return gateway

    run.options.update(stripe_api_key=key, stripe_api_base=base)
    return open_gateway


def open_connected_account(
    run: Run, tenancy: str | None, key: str | None, base: str | None
) -> tuple[ConfigLayers, str, Gateway]:
    """The tenancy's configuration, the connected account of its project, and Stripe on that account.

    Raises ConfigError `no-stripe-key`, StateError `no-account`, UsageError for the tenancy.
    """
    from stackctl.backend.tenancies import choose_tenancy, read_layers
    from stackctl.payments.connection import find_account

    open_gateway = prepare_gateway(run, key, base)
    with run.database() as conn:
        layers = read_layers(conn, choose_tenancy(conn, tenancy))
        found = find_account(conn, layers)
    return layers, found, open_gateway(found)

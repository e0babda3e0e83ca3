"""stackctl payment-methods list"""

from __future__ import annotations

from stackctl.cli.command import Run, command
from stackctl.cli.payment_methods.shared import ConfigurationId, read_configuration
from stackctl.cli.stripe_options import StripeApiBase, StripeApiKey, Tenancy
from stackctl.core.tables import Column


@command(
    example="stackctl payment-methods list --tenancy acme\nstackctl payment-methods list --tenancy acme --json",
    lists=True,
)
def list_(
    run: Run,
    tenancy: Tenancy = None,
    configuration: ConfigurationId = None,
    stripe_api_key: StripeApiKey = None,
    stripe_api_base: StripeApiBase = None,
) -> None:
    """List the methods by category: whether checkout shows them, and whether they can be switched.

    Prints a row for each method: on or off, and what it needs.
    Exit codes: 0 printed; 4 the database or Stripe can't be reached, or Stripe refuses the key; 5 no account is
    connected.
    """
    from stackctl.payments.methods import CATEGORIES

    _, found = read_configuration(run, tenancy, configuration, stripe_api_key, stripe_api_base)
    document = {
        "account": found.account,
        "config_id": found.id,
        "methods": [
            {
                "id": one.method.id,
                "name": one.method.name,
                "category": one.method.category,
                "enabled": one.enabled,
                "available": one.available,
                "overridable": one.overridable,
                "requires": one.method.requires,
            }
            for one in found.methods
        ],
    }
    rows = [
        (
            title,
            one.method.id,
            one.method.name,
            "on" if one.enabled else "off",
            _yes(one.available),
            _yes(one.overridable),
            ", ".join(one.method.requires),
        )
        for category, title in CATEGORIES.items()
        for one in found.methods
        if one.method.category == category
    ]

    def show_configuration() -> None:
        run.console.line()
        run.console.line(f"account {found.account}, configuration {found.id}")

    run.finish_list(
        document,
        (
            Column("category", group=True),
            "method",
            Column("name", spare=1),
            "state",
            Column("available", spare=4),
            Column("overridable", spare=2),
            Column("requires", folds=True, spare=3),
        ),
        rows,
        empty="no methods",
        after=show_configuration,
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"

"""stackctl payment-methods set"""

from __future__ import annotations

from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.payment_methods.shared import ConfigurationId, DryRun, Yes, apply_plan, read_configuration
from stackctl.cli.stripe_options import StripeApiBase, StripeApiKey, Tenancy


@command(example="stackctl payment-methods set card=on klarna=off --tenancy acme --dry-run")
def set_(
    run: Run,
    methods: Annotated[
        list[str], typer.Argument(metavar="METHODS...", help="One or more of METHOD=on and METHOD=off.")
    ],
    tenancy: Tenancy = None,
    configuration: ConfigurationId = None,
    stripe_api_key: StripeApiKey = None,
    stripe_api_base: StripeApiBase = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Switch payment methods on or off; shows the difference first.

    Prints each method that is switched.
    Exit codes: 0 done, or nothing to change; 1 Stripe did not do all of it; 2 no such method; 4 the database or Stripe
    can't be reached, or Stripe refuses the key; 5 refused, or not confirmed; 6 sent, but not answered.
    """
    from stackctl.payments.methods import parse_arguments

    wanted = parse_arguments(methods)
    gateway, found = read_configuration(run, tenancy, configuration, stripe_api_key, stripe_api_base)
    apply_plan(run, gateway, found, wanted, yes=yes, dry_run=dry_run)

"""stackctl payment-methods plan"""

from __future__ import annotations

from stackctl.cli.command import Run, command
from stackctl.cli.payment_methods.shared import (
    ConfigurationId,
    StatesFile,
    plan_document,
    read_configuration,
    show_plan,
)
from stackctl.cli.stripe_options import StripeApiBase, StripeApiKey, Tenancy


@command(example="stackctl payment-methods plan methods.yaml --tenancy acme")
def plan(
    run: Run,
    file: StatesFile,
    tenancy: Tenancy = None,
    configuration: ConfigurationId = None,
    stripe_api_key: StripeApiKey = None,
    stripe_api_base: StripeApiBase = None,
) -> None:
    """Show what `apply` would change, and what stands in the way.

    Prints each method that would be switched, and each that can't be.
    Exit codes: 0 nothing stands in the way; 1 something does; 3 the file is bad; 4 the database or Stripe can't be
    reached, or Stripe refuses the key; 5 no account is connected.
    """
    from stackctl.payments import methods

    wanted = methods.load_states(file)
    _, found = read_configuration(run, tenancy, configuration, stripe_api_key, stripe_api_base)
    planned = methods.plan_changes(found, wanted)
    run.finish(plan_document(planned, applied=False), lambda: show_plan(run, planned), ok=not planned.blocked)

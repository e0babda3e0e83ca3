"""stackctl payment-methods apply"""

from __future__ import annotations

from stackctl.cli.command import Run, command
from stackctl.cli.payment_methods.shared import ConfigurationId, DryRun, StatesFile, Yes, apply_plan, read_configuration
from stackctl.cli.stripe_options import StripeApiBase, StripeApiKey, Tenancy


@command(example="stackctl payment-methods apply methods.yaml --tenancy acme --dry-run")
def apply(
    run: Run,
    file: StatesFile,
    tenancy: Tenancy = None,
    configuration: ConfigurationId = None,
    stripe_api_key: StripeApiKey = None,
    stripe_api_base: StripeApiBase = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Switch payment methods to the state that a file gives; shows the difference first.

    Prints each method that is switched.
    Exit codes: 0 done, or nothing to change; 1 Stripe did not do all of it; 3 the file is bad; 4 the database or Stripe
    can't be reached, or Stripe refuses the key; 5 refused, or not confirmed; 6 sent, but not answered.
    """
    from stackctl.payments.methods import load_states

    wanted = load_states(file)
    gateway, found = read_configuration(run, tenancy, configuration, stripe_api_key, stripe_api_base)
    apply_plan(run, gateway, found, wanted, yes=yes, dry_run=dry_run)

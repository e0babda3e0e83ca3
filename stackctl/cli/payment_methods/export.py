"""stackctl payment-methods export"""

from __future__ import annotations

from stackctl.cli.command import Run, command
from stackctl.cli.payment_methods.shared import ConfigurationId, read_configuration
from stackctl.cli.stripe_options import StripeApiBase, StripeApiKey, Tenancy


@command(example="stackctl payment-methods export --tenancy acme > methods.yaml")
def export(
    run: Run,
    tenancy: Tenancy = None,
    configuration: ConfigurationId = None,
    stripe_api_key: StripeApiKey = None,
    stripe_api_base: StripeApiBase = None,
) -> None:
    """Print the present state as a file for `plan` and `apply`.

    Prints the file.
    Exit codes: 0 printed; 4 the database or Stripe can't be reached, or Stripe refuses the key; 5 no account is
    connected.
    """
    from stackctl.payments.methods import format_configuration

    _, found = read_configuration(run, tenancy, configuration, stripe_api_key, stripe_api_base)
    states = {one.method.id: one.enabled for one in found.methods}
    run.finish({"payment_methods": states}, lambda: run.console.document(format_configuration(found)))

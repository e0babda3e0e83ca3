"""stackctl payments status"""

from __future__ import annotations

from stackctl.cli.command import Run, command
from stackctl.cli.stripe_options import StripeApiBase, StripeApiKey, Tenancy, open_connected_account


@command(example="stackctl payments status --tenancy acme\nstackctl payments status --tenancy acme --json")
def status(
    run: Run, tenancy: Tenancy = None, stripe_api_key: StripeApiKey = None, stripe_api_base: StripeApiBase = None
) -> None:
    """Show the connected account, what Stripe still waits for, and whether key and project are of one mode.

    Prints a line for each, and what is missing.
    Exit codes: 0 shown; 4 the database or Stripe can't be reached, or Stripe refuses the key; 5 no account is
    connected.
    """
    from dataclasses import asdict

    from stackctl.payments import connection

    layers, account, gateway = open_connected_account(run, tenancy, stripe_api_key, stripe_api_base)
    with run.database() as conn:
        earlier = connection.list_earlier_accounts(conn, layers.tenancy, account)
    found = connection.read_status(gateway, account, layers, earlier)
    differ = found.key_mode != found.project_mode

    def show() -> None:
        line = run.console.line
        if found.disabled_reason is not None:
            line(f"disabled  {found.disabled_reason}", "red")
        for what in found.past_due:
            line(f"          past due: {what}", "red")
        for what in found.errors:
            line(f"          {what}", "red")
        line(f"account   {found.account}")
        for other in found.earlier_accounts:
            line(f"          was connected to {other}, whose payments are refunded there")
        ready = found.status == "connected"
        line(f"status    {'connected' if ready else 'setup incomplete'}", None if ready else "yellow")
        for what in found.due:
            if what in found.past_due:
                continue
            line(f"          due: {what}", "yellow")
        line(f"charges   {'enabled' if found.charges_enabled else 'not enabled'}")
        line(f"payouts   {'enabled' if found.payouts_enabled else 'not enabled'}")
        line(f"modes     key {found.key_mode}, project {found.project_mode}")
        if differ:
            run.console.warn(f"the key is a {found.key_mode} key, and the project is in {found.project_mode} mode")

    run.finish({**asdict(found), "modes_differ": differ}, show)

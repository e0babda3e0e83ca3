"""stackctl payments"""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from stackctl.cli.command import Run, command, group, uuid_argument
from stackctl.cli.payments_common import ApiBase, ApiKey, Tenancy, connected

app = group("How a project is connected to Stripe; its test mode.", example="stackctl payments status")
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


def _on(value: bool) -> str:
    return "on" if value else "off"

"""stackctl payments test-mode"""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.stripe_options import Tenancy


class Switch(Enum):
    on = "on"
    off = "off"


@command(example="stackctl payments test-mode --tenancy acme\nstackctl payments test-mode off --tenancy acme --dry-run")
def test_mode(
    run: Run,
    state: Annotated[Switch | None, typer.Argument(metavar="[on|off]", help="Leave it out to show the mode.")] = None,
    tenancy: Tenancy = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
) -> None:
    """Show or switch a tenancy's test mode, in which purchases cost nothing. Only its own key is written.

    Prints whether it is on.
    Exit codes: 0 printed or done, or nothing to change; 2 no such tenancy; 4 the operated database can't be reached; 5
    not confirmed, or the configuration was changed by someone else in the meantime.
    """
    from stackctl.backend.tenancies import choose_tenancy, read_layers
    from stackctl.payments import connection

    with run.database() as conn:
        layers = read_layers(conn, choose_tenancy(conn, tenancy))
        before = connection.is_test_mode(layers)
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

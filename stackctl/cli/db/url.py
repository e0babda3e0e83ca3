"""stackctl db url"""

from __future__ import annotations

from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.core.documents import Exact
from stackctl.core.durations import format_duration


@command(example='stackctl db url\npg_dump --schema-only "$(stackctl db url)"')
def url(
    run: Run,
    show_password: Annotated[bool, typer.Option("--show-password", help="Print the password in it, too.")] = False,
) -> None:
    """Print where the operated database is, as a URL for other programs.

    Without --show-password the password is left out: a program that is given the URL finds it in PGPASSWORD or
    ~/.pgpass. An embedded server runs as long as stackctl uses it, and for so long after as `keep` says
    (`embedded:DIR?keep=30m`, as in the demo); `stackctl db psql` uses it to its own end.

    Prints the URL.
    Exit codes: 0 printed; 4 the operated database can't be reached.
    """
    from stackctl.postgres.client_programs import to_url
    from stackctl.postgres.connect import find_operated_parameters

    parameters, server = find_operated_parameters(run.settings)
    found = to_url(parameters, with_secrets=show_password)
    hidden = not show_password and bool(parameters.get("password"))
    if hidden and not run.json_output:
        run.console.info("the password is left out; --show-password prints it")
    if server is not None:
        after = (
            f"{format_duration(server.keep)} after its last use" if server.keep else "when no stackctl uses it any more"
        )
        run.console.info(f"the embedded server stops {after}")
    run.finish(
        {"url": Exact(found), "password_hidden": hidden, "embedded": server is not None},
        lambda: run.console.line(found, exact=True),
    )

"""stackctl db psql"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.signals import handle_signals
from stackctl.core.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping


@command(example='stackctl db psql\nstackctl db psql -- -c "SELECT count(*) FROM \\"ProjectUser\\""')
def psql(
    run: Run,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- OPTION...]", help="Options and arguments of psql.")
    ] = None,
) -> None:
    """Open psql on the operated database, also on an embedded server, which runs as long as psql does.

    psql is given the connection, and the password, in its environment, where no list of processes shows them.

    Prints what psql prints.
    Exit codes: 0-3 those of psql; 4 there is no psql, or the operated database can't be reached.
    """
    from stackctl.postgres.client_programs import to_variables
    from stackctl.postgres.connect import find_operated_parameters
    from stackctl.postgres.libpq import to_conninfo

    parameters, server = find_operated_parameters(run.settings, with_search_path=True)
    program = _find_psql(bundled=server is not None)
    variables, others = to_variables(parameters)
    line = [program, *([f"--dbname={to_conninfo(others)}"] if others else []), *(arguments or ())]
    environment = os.environ | variables
    if server is not None:
        raise typer.Exit(_run(line, environment))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python ignores, and psql would go on ignoring
    os.execve(program, line, environment)


def _find_psql(*, bundled: bool) -> str:
    """The psql of the path; for an embedded server, else the one that came with it. Raises ServiceError."""
    if found := shutil.which("psql"):
        return found
    if bundled:
        from stackctl.postgres.binaries import find_binaries

        if (own := find_binaries() / "psql").exists():
            return str(own)
    raise ServiceError(
        "psql is not installed",
        code="psql-missing",
        hint="install PostgreSQL's client programs (Debian: postgresql-client, Homebrew: libpq)",
    )


def _run(line: list[str], environment: Mapping[str, str]) -> int:
    """psql beside us, who keep the server for it; what Ctrl-C means is psql's to say."""
    process = subprocess.Popen(line, env=environment)

    def hand_on(number: int, frame: object) -> None:
        if number != signal.SIGINT:  # which the terminal sends to both
            process.send_signal(number)

    handle_signals(hand_on)
    code = process.wait()
    return code if code >= 0 else 128 - code

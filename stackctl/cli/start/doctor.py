"""stackctl doctor"""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain

from stackctl.cli.command import Run, command
from stackctl.core.sentences import format_count

_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


@command(example="stackctl doctor\nstackctl doctor --json")
def doctor(run: Run) -> None:
    """Check the configuration and every database; each finding names its fix. Changes nothing.

    Prints a line for each check, `ok`, `warning` or `failed`, and a hint where one is needed.
    Exit codes: 0 nothing is wrong (warnings aside); 1 something is.
    """
    from stackctl.cli.start.diagnosis import run_checks
    from stackctl.cli.start.http_diagnosis import check_http

    console = run.console
    checks = []
    for check in chain(run_checks(run.settings), check_http(run.settings)):
        checks.append(check)
        if not run.json_output:
            console.line(f"{check.status:<8} {check.name}: {check.message}", style=_STYLES[check.status], hang=9)
            if check.hint and check.status != "ok":
                console.line(f"         → {check.hint}")
    ok = all(check.status != "error" for check in checks)

    def verdict() -> None:
        wrong = sum(check.status == "error" for check in checks)
        warnings = sum(check.status == "warning" for check in checks)
        told = format_count(warnings, "warning", "warnings")
        console.line()
        if wrong:
            console.line(f"{wrong} of {len(checks)} checks found something wrong" + (f", {told}" if warnings else ""))
        else:
            console.line(f"nothing is wrong, {told}" if warnings else "all well")

    run.finish({"ok": ok, "checks": [asdict(check) for check in checks]}, verdict, ok=ok)

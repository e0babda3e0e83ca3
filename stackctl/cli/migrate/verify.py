"""stackctl migrate verify"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from stackctl.cli.command import Run, command
from stackctl.cli.migrate.shared import Directory, History, open_database, read_own_set
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.core.console import Console
    from stackctl.migrate.verify import VerifyFinding


@command(example="stackctl migrate verify")
def verify(run: Run, directory: Directory = None, history: History = None) -> None:
    """Check that files, history and database belong together. Writes nothing.

    Found are applied files that were edited or deleted, a database ahead of the files, files older than what is
    applied, half-applied files, and INVALID indexes. Comments and line endings do not count as edits, and a pending
    file is no finding.

    Prints a line for each finding.
    Exit codes: 0 all fits; 1 something was found; 4 the operated database can't be reached; 5 its history is not
    stackctl's.
    """
    from stackctl.migrate.sets import complete_sets
    from stackctl.migrate.verify import verify as compare

    own, schema = read_own_set(run, directory, history), run.settings.get("database.schema")
    with open_database(run) as conn:
        sets = complete_sets(conn, own, schema)
        found = compare(conn, sets, schema)
    files = sum(len(each.migrations) for each in sets)
    document = {"ok": not found, "findings": [asdict(finding) for finding in found]}
    run.finish(document, lambda: _show_findings(run.console, found, files), ok=not found)


def _show_findings(console: Console, found: Sequence[VerifyFinding], files: int) -> None:
    for finding in found:
        console.line(f"{finding.name}: {finding.kind}", "red")
        console.line(f"  {finding.message}")
        console.line(f"  hint: {finding.hint}")
    if found:
        console.line(format_count(len(found), "finding", "findings"))
    else:
        console.line(f"{format_count(files, 'file', 'files')}, history and database fit")

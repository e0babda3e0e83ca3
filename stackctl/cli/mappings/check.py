"""stackctl mappings check"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.core.errors import ConfigError
from stackctl.core.files import STDIN
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from stackctl.mapping.model import Finding


@command(example="stackctl mappings check\nstackctl mappings check --offline")
def check(
    run: Run,
    files: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="Files; default all.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the database, even if one is named.")] = False,
) -> None:
    """Check mapping files, and against the operated database when one is named.

    Prints each finding with its file, line and column.
    Exit codes: 0 nothing found; 1 findings; 4 the operated database can't be reached.
    """
    from stackctl.mapping.check import check_mappings as inspect
    from stackctl.mapping.files import list_mapping_files

    chosen = files or list_mapping_files(*run.settings.mappings_dirs())
    for file in chosen:
        if not file.is_file() and file != STDIN:
            raise ConfigError(f"{file} does not exist", code="file-not-found", hint="see `stackctl mappings list`")
    if offline or not _database_named(run):
        found = inspect(chosen)
    else:
        with run.database() as conn:
            found = inspect(chosen, catalog=conn)
    bad = any(finding.severity == "error" for finding in found)

    def lines() -> None:
        for finding in found:
            run.console.line(_line(finding))
        files = format_count(len(chosen), "file", "files")
        findings = format_count(len(found), "finding", "findings") if found else "nothing found"
        run.console.line(f"{files}: {findings}")

    run.finish({"ok": not bad, "findings": [asdict(finding) for finding in found]}, lines, ok=not bad)


def _database_named(run: Run) -> bool:
    try:
        return bool(run.settings.database_url())
    except ConfigError as error:
        if error.code == "no-database":
            return False
        raise


def _line(finding: Finding) -> str:
    suggestion = f" ({finding.suggestion})" if finding.suggestion else ""
    place = f"{finding.file}:{finding.line}:{finding.column}"
    return f"{place}: {finding.severity}: {finding.message} [{finding.rule}]{suggestion}"

"""stackctl migrate squash"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.migrate.shared import Directory, Trust, require_own_folder
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from stackctl.migrate.squash import Squash


@command(
    example="stackctl migrate squash --to 20260802090000 --dry-run --dir db/migrations\n"
    "stackctl migrate squash --to 20260802090000 --dir db/migrations --yes",
)
def squash(
    run: Run,
    to: Annotated[
        str | None, typer.Option("--to", metavar="VERSION", help="The last version or name; default the last file.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the new file, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    trust: Trust = False,
    directory: Directory = None,
) -> None:
    """Make one file of the migrations up to a version: a dump of what they make, with the rows that they write.

    A database that has the last of them needs nothing; one that has some of them but not the last is refused by up. The
    dump is applied to a temporary PostgreSQL first, and must give the same schema and rows. No database is touched.

    Prints the path of the new file; with --dry-run the file itself.
    Exit codes: 0 done; 2 no such migration or fewer than two; 3 a file does not apply; 4 the temporary PostgreSQL does
    not start; 5 a dump can't hold what they make, or not confirmed.
    """
    from stackctl.core.documents import Exact
    from stackctl.migrate.folder import discover
    from stackctl.migrate.squash import execute_squash, plan_squash

    folder = require_own_folder(run, directory)
    schema = run.settings.get("database.schema")
    found = plan_squash(folder, discover(folder), to, schema, trust=trust, tell=run.console.info)
    if not dry_run:
        count = format_count(len(found.removed), "file", "files")
        run.confirm(f"Replace {count} by {found.path}?{_describe_rows(found)}", yes=yes)
        execute_squash(found)
    document = {
        "path": found.path,
        "stands_for": list(found.stands_for),
        "removed": list(found.removed),
        "rows": found.rows,
        "dry_run": dry_run,
    }
    run.finish(document | ({"sql": Exact(found.text)} if dry_run else {}), lambda: _show(run, found, dry_run))


def _describe_rows(found: Squash) -> str:
    if not found.rows:
        return ""
    tables = ", ".join(f"{table} ({count:,})" for table, count in found.rows.items())
    return f" It carries over rows as they came out now, values like now() among them: {tables}."


def _show(run: Run, found: Squash, dry_run: bool) -> None:
    if dry_run:
        run.console.document(found.text)
    for path in found.removed:
        run.console.info(f"{'would remove' if dry_run else 'removed'} {path}")
    if rows := _describe_rows(found):
        run.console.warn(rows.strip())
    if not dry_run:
        run.console.line(str(found.path))

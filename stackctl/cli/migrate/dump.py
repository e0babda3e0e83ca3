"""stackctl migrate dump"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.migrate.shared import open_database, write_dump


@command(
    example="stackctl migrate dump\nstackctl migrate dump --output db/schema.sql",
)
def dump(
    run: Run,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file.")] = None,
) -> None:
    """Print the schema of the operated database as SQL, always in the same order: for reviews and diffs.

    Without owners, versions and data, so that two databases with the same schema give the same text.

    Prints the SQL, or with --output the file's path.
    Exit codes: 0 printed; 4 the operated database can't be reached.
    """
    from stackctl.core.documents import Exact
    from stackctl.migrate.schema.dump import dump_schema

    schema = run.settings.get("database.schema")
    with open_database(run) as conn:
        if output is not None:
            write_dump(run, conn, output)
            run.finish({"schema": schema, "output": output, "sql": None}, lambda: _tell(run, output))
        else:
            text = dump_schema(conn, schema)
            document = {"schema": schema, "output": None, "sql": Exact(text)}
            run.finish(document, lambda: run.console.document(text))


def _tell(run: Run, output: Path) -> None:
    from stackctl.core.files import is_stream

    if not is_stream(output):  # stdout may be what the dump went to
        run.console.line(str(output))

"""stackctl mappings compile"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.mappings.shared import Name, read_mappings


@command(example="stackctl mappings compile users --dialect mysql")
def compile_(
    run: Run,
    mapping: Name,
    dialect: Annotated[
        Literal["postgres", "sqlite", "duckdb", "mysql", "clickhouse"],
        typer.Option("--dialect", help="The SQL dialect of the external database."),
    ] = "postgres",
) -> None:
    """Print the statements made from a mapping: what runs on the source, and what in an external database.

    Prints the SQL, each statement under a comment that says where it runs.
    Exit codes: 0 printed; 2 no such mapping; 3 the mapping file is bad.
    """
    from stackctl.core.documents import Exact
    from stackctl.mapping.compile import compile_mapping

    compiled = compile_mapping(read_mappings(run).find(mapping), dialect)
    on_source = ("fetch", "by_key", "next_key", "resend", "load", "high_water", "backlog", "oldest_unsent")
    source = {name: getattr(compiled, name) for name in on_source}
    target = {name: getattr(compiled, name) for name in ("create_table", "create_staging", "upsert", "delete")}

    text = "".join(
        f"-- {place}: {name}\n{statement.rstrip()};\n\n"
        for place, statements in (("source (PostgreSQL)", source), (f"external database ({dialect})", target))
        for name, statement in statements.items()
    )
    document = {"mapping": mapping, "dialect": dialect, "source": Exact(source), "target": Exact(target)}
    run.finish(document, lambda: run.console.document(text))

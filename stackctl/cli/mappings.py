"""stackctl mappings"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stackctl.cli.command import Run, command, group
from stackctl.errors import ConfigError

if TYPE_CHECKING:
    from stackctl.mapping.model import Finding, Mapping

app = group("List, check and compile the SQL mappings.", example="stackctl mappings list")
apps = {"mappings": app}

Name = Annotated[str, typer.Argument(metavar="MAPPING", help="Name of a mapping.")]


@command(app, "list", example="stackctl mappings list --json")
def list_(run: Run) -> None:
    """List the mappings: source, target, key, and what their rows depend on."""
    mappings = _pipeline(run).mappings.values()

    def table() -> None:
        run.console.table(
            ("mapping", "source", "target", "key", "columns", "depends on"),
            [
                (
                    m.name,
                    m.source,
                    m.target,
                    ", ".join(m.key),
                    len(m.columns),
                    ", ".join(dependency.table for dependency in m.depends_on) or None,
                )
                for m in mappings
            ],
            right=("columns",),
        )

    run.finish({"mappings": [_document(mapping) for mapping in mappings]}, table)


@command(app, "show", example="stackctl mappings show users")
def show(run: Run, mapping: Name) -> None:
    """Print a mapping's file."""
    found = _pipeline(run).mapping(mapping)
    text = found.file.read_text(encoding="utf-8")
    run.finish(_document(found) | {"text": text}, lambda: run.console.line(text.rstrip("\n")))


@command(app, "check", example="stackctl mappings check\nstackctl mappings check --offline")
def check(
    run: Run,
    files: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="Files; default all.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the database, though one is named.")] = False,
) -> None:
    """Check mapping files, and against the operated database when one is named.

    Exit codes: 0 nothing found, 1 findings.
    """
    from stackctl.mapping.check import check as inspect
    from stackctl.mapping.files import paths

    chosen = files or paths(run.settings.mappings_dir())
    for file in chosen:
        if not file.is_file():
            raise ConfigError(f"{file} does not exist", code="file-not-found", hint="see `stackctl mappings list`")
    if offline or not _database_named(run):
        found = inspect(chosen)
    else:
        with _pipeline(run).session() as conn:
            found = inspect(chosen, catalog=conn)
    bad = any(finding.severity == "error" for finding in found)

    def lines() -> None:
        for finding in found:
            run.console.line(_line(finding))
        run.console.line(f"{len(chosen)} files, {len(found)} findings" if found else f"{len(chosen)} files, all well")

    run.finish({"ok": not bad, "findings": [asdict(finding) for finding in found]}, lines, ok=not bad)


@command(app, "compile", example="stackctl mappings compile users --dialect mysql")
def compile_(
    run: Run,
    mapping: Name,
    dialect: Annotated[
        Literal["postgres", "sqlite", "duckdb", "mysql", "clickhouse"], typer.Option("--dialect", help="Of the target.")
    ] = "postgres",
) -> None:
    """Print the statements made from a mapping: what runs on the source, and what on a target of the dialect."""
    from stackctl.mapping.compile import compile_mapping

    compiled = compile_mapping(_pipeline(run).mapping(mapping), dialect)
    on_source = ("fetch", "by_key", "next_key", "resend", "load", "high_water", "backlog", "oldest_unsent")
    source = {name: getattr(compiled, name) for name in on_source}
    target = {name: getattr(compiled, name) for name in ("create_table", "create_staging", "upsert", "delete")}

    def print_all() -> None:
        for place, statements in (("source (PostgreSQL)", source), (f"target ({dialect})", target)):
            for name, statement in statements.items():
                run.console.line(f"-- {place}: {name}")
                run.console.line(statement.rstrip() + ";\n")

    run.finish({"mapping": mapping, "dialect": dialect, "source": source, "target": target}, print_all)


def _pipeline(run: Run) -> Any:
    from stackctl.sync.pipeline import Pipeline

    return Pipeline(run.settings)


def _database_named(run: Run) -> bool:
    try:
        return bool(run.settings.database_url())
    except ConfigError as error:
        if error.code == "no-database":
            return False
        raise


def _document(mapping: Mapping) -> dict[str, Any]:
    return {
        "name": mapping.name,
        "source": mapping.source,
        "target": mapping.target,
        "key": mapping.key,
        "columns": [asdict(column) for column in mapping.columns],
        "depends_on": [dependency.table for dependency in mapping.depends_on],
        "file": mapping.file,
    }


def _line(finding: Finding) -> str:
    suggestion = f" ({finding.suggestion})" if finding.suggestion else ""
    place = f"{finding.file}:{finding.line}:{finding.column}"
    return f"{place}: {finding.severity}: {finding.message} [{finding.rule}]{suggestion}"

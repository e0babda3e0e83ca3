"""stackctl migrate lint"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.github import format_path
from stackctl.cli.migrate.shared import Format, open_database, set_format
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stackctl.cli.github import Level
    from stackctl.core.console import Console
    from stackctl.migrate.lint.database_facts import DatabaseFacts
    from stackctl.migrate.lint.findings import LintFinding
    from stackctl.migrate.lint.registry import LintRule


@command(
    example="stackctl migrate lint\nstackctl migrate lint --base origin/main --format github\n"
    "stackctl migrate lint db/migrations --ask-database",
)
def lint(
    run: Run,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE|DIR]…", help="Migrations; default migrations_dir, else the bundled set."),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", metavar="REF", help="Only files new or changed since this git commit.")
    ] = None,
    ask_database: Annotated[
        bool,
        typer.Option("--ask-database", help="Ask the operated database for sizes, checks, volatility and syntax."),
    ] = False,
    rule: Annotated[
        list[str] | None, typer.Option("--rule", metavar="RULE", help="Check only this rule; repeatable.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="RULE", help="Skip this rule; repeatable.")
    ] = None,
    server_version: Annotated[
        int | None,
        typer.Option(
            "--server-version",
            min=10,
            metavar="N",
            help="Version of PostgreSQL; default the database's, else the newest.",
        ),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="How to show findings.")] = Format.text,
) -> None:
    """Find what is unsafe while the application runs, or breaks its previous version.

    Nothing is executed, and no database is needed. With --ask-database, or where --database-url is given, the database
    answers what only it can tell. A finding is silenced by a comment: -- stackctl:allow RULE reason
    Which rules are asked, and how severe each is, stackctl.yaml says under migrations.lint.

    Prints each finding with its file, line and a safer way; other forms with --format.
    Exit codes: 0 clean (advice does not count); 1 findings; 2 no such file, commit or rule; 4 the database that was to
    be asked can't be reached; 5 no git repository.
    """
    set_format(run, format_)
    from stackctl.migrate.lint.choosing import choose_rules, parse_version
    from stackctl.migrate.lint.file_selection import select_files
    from stackctl.migrate.lint.findings import has_failures
    from stackctl.migrate.lint.linter import lint_files

    disabled, severities, since = (
        run.settings.setting(f"migrations.lint.{key}") for key in ("disable", "severity", "from")
    )
    rules = choose_rules(rule or (), exclude or (), disabled, severities)
    folders = select_files(paths or [run.settings.migrations_dir()], base, parse_version(since))
    schema = run.settings.get("database.schema")
    with (
        _open_database_facts(run, ask_database or run.options["database_url"] is not None) as database,
        run.console.progress("reading", unit="statements") as progress,
    ):
        findings = [
            finding
            for folder in folders
            for finding in lint_files(
                folder,
                schema=schema,
                database=database,
                server_version=server_version or (database.server_version if database else None),
                rules=rules,
                advance=progress.advance,
            )
        ]
    files = [file.path for folder in folders for file in folder if file.report]
    ok = not has_failures(findings)

    def show() -> None:
        if format_ is Format.text:
            _show(run.console, findings, len(files))
        else:
            _report(run.console, format_, findings, files, rules)

    document = {"ok": ok, "findings": [_document(finding) for finding in findings]} if run.json_output else None
    run.finish(document, show, ok=ok)


@contextmanager
def _open_database_facts(run: Run, wanted: bool) -> Iterator[DatabaseFacts | None]:
    if not wanted:
        yield None
        return
    from stackctl.migrate.lint.database_facts import DatabaseFacts

    with open_database(run) as conn:
        yield DatabaseFacts(conn)


def _document(finding: LintFinding) -> dict[str, Any]:
    from stackctl.core.documents import Exact

    return {
        "file": format_path(finding.file),
        "line": finding.line,
        "column": finding.column,
        "rule": finding.rule,
        "severity": finding.severity,
        "message": finding.message,
        "suggestion": Exact(finding.suggestion or None),
    }


def _show(console: Console, findings: Sequence[LintFinding], count: int) -> None:
    styles = {"error": "red", "warning": "yellow", "advice": "cyan"}
    for finding in findings:
        place = f"{format_path(finding.file)}:{finding.line}:{finding.column}"
        console.line(f"{place}: {finding.severity} {finding.rule}", styles[finding.severity])
        console.line(f"  {finding.what}")
        console.line(f"  why: {finding.why}")
        if finding.suggestion:
            console.line("  safe way:")
            for line in finding.suggestion.split("\n"):
                console.line(f"    {line}", exact=True)
        console.line()
    console.line(_summary(findings, count))


def _report(
    console: Console,
    format_: Format,
    findings: Sequence[LintFinding],
    files: Sequence[Path],
    rules: Mapping[str, LintRule],
) -> None:
    from stackctl.cli.report_formats import Report, ReportedFinding, print_report

    levels: dict[str, Level] = {"error": "error", "warning": "warning", "advice": "notice"}
    reported = [
        ReportedFinding(levels[one.severity], one.file, one.line, one.column, one.rule, one.message, one.suggestion)
        for one in findings
    ]
    asked: dict[str, tuple[str, Level]] = {id_: (rule.title, levels[rule.severity]) for id_, rule in rules.items()}
    print_report(console, format_, Report("stackctl migrate lint", files, reported, asked))
    console.info(_summary(findings, len(files)))


def _summary(findings: Sequence[LintFinding], count: int) -> str:
    files = format_count(count, "file", "files")
    if not findings:
        return f"{files}: nothing found" if count else "no file to look at"
    numbers = {severity: sum(f.severity == severity for f in findings) for severity in ("error", "warning", "advice")}
    parts = [
        format_count(number, severity, severity if severity == "advice" else f"{severity}s")
        for severity, number in numbers.items()
        if number
    ]
    return f"{files}: {', '.join(parts)}. To let one pass: -- stackctl:allow RULE reason"

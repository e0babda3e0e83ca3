"""stackctl migrate check"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.github import format_path
from stackctl.cli.migrate.shared import Directory, Format, Trust, require_own_folder, set_format
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackctl.cli.github import Level
    from stackctl.core.console import Console
    from stackctl.migrate.compatibility.report import CheckReport, CommandComparison, CompatibilityFinding
    from stackctl.migrate.compatibility.statement_observer import MeasuredStatement

_SQL_WIDTH = 60


@command(
    example="stackctl migrate check --base origin/main --dir db/migrations\n"
    "stackctl migrate check --base v1.4.0 --rows 100000\n"
    "stackctl migrate check --base origin/main --run ../released/test.sh",
)
def check(
    run: Run,
    base: Annotated[str, typer.Option("--base", metavar="REF", help="The git commit that runs now.")],
    rows: Annotated[
        int,
        typer.Option("--rows", min=0, metavar="N", help="Made-up rows in each table while statements are measured."),
    ] = 1000,
    command: Annotated[
        str | None,
        typer.Option("--run", metavar="CMD", help="Run against old and new schema: the old version's tests."),
    ] = None,
    run_env: Annotated[
        list[str] | None,
        typer.Option("--run-env", metavar="NAME", help="Variable that --run also inherits; repeatable."),
    ] = None,
    trust: Trust = False,
    format_: Annotated[Format, typer.Option("--format", help="How to show the result.")] = Format.text,
    directory: Directory = None,
) -> None:
    """Try whether the migrations that are new since a commit leave its version of the application working.

    The files of the commit and each new file are applied to a temporary PostgreSQL; no other database is touched. The
    schemas are compared as a contract, and every new statement is run on made-up rows: its locks, tables rewritten,
    time. With --run, a command gets DATABASE_URL before and after; only what passed and then fails counts. It inherits
    the whole environment, with the secrets in it, unless --run-env narrows it. The files' SQL runs as a role without
    superuser's rights, which reaches no files, programs or other servers, unless --trust is given.

    Prints what breaks, and what each new statement locks and rewrites.
    Exit codes: 0 nothing breaks (warnings do not count); 1 something breaks; 2 no such commit; 3 a file does not apply;
    4 the temporary PostgreSQL does not start; 5 no git repository.
    """
    from stackctl.migrate.compatibility.check import CheckOptions, check_compatibility
    from stackctl.migrate.folder import discover

    set_format(run, format_)
    folder = require_own_folder(run, directory)
    options = CheckOptions(
        schema=run.settings.get("database.schema"),
        rows=rows,
        command=command,
        run_env=tuple(run_env or ()),
        trust=trust,
        capture=run.settings.get("database.change_capture") != "application",
    )
    report = check_compatibility(folder, discover(folder), base, options, tell=run.console.info)

    def show() -> None:
        if format_ is Format.text:
            _show(run.console, report)
        else:
            _report(run.console, format_, report)

    run.finish(_document(report), show, ok=report.ok)


def _document(report: CheckReport) -> dict[str, Any]:
    from stackctl.core.documents import Exact

    return {
        "ok": report.ok,
        "base": report.base,
        "new": [migration.name for migration in report.new],
        "findings": [
            {
                "file": format_path(finding.file),
                "line": finding.line,
                "column": finding.column,
                "rule": finding.rule,
                "severity": finding.severity,
                "message": finding.message,
                "suggestion": Exact(finding.suggestion),
            }
            for finding in report.findings
        ],
        "statements": [
            {
                "file": format_path(measured.migration.path),
                "line": measured.statement.line,
                "sql": Exact(_beginning(measured.statement.sql)),
                "locks": [{"relation": lock.relation, "mode": lock.mode} for lock in measured.locks],
                "rewrites": list(measured.rewrites),
                "indexes": list(measured.indexes),
                "ms": round(measured.ms, 1),
                "outside_transaction": measured.outside_transaction,
            }
            for measured in report.statements
        ],
        "run": _run_document(report.run) if report.run else None,
        "tables_without_rows": [{"table": skip.table, "why": skip.why} for skip in report.skipped],
        "made_up_roles": list(report.roles),
    }


def _run_document(tried: CommandComparison) -> dict[str, Any]:
    def outcome(one: Any) -> dict[str, Any]:
        return {"exit_code": one.exit_code, "seconds": round(one.seconds, 2), "tail": one.tail}

    return {
        "command": tried.command,
        "verdict": tried.verdict,
        "broken_by": tried.broken_by.name if tried.broken_by else None,
        "before": outcome(tried.before),
        "after": outcome(tried.after),
    }


def _show(console: Console, report: CheckReport) -> None:
    for _, group in groupby(report.statements, key=lambda measured: measured.migration.name):
        measured = list(group)
        console.line(format_path(measured[0].migration.path), "bold")
        for one in measured:
            console.line(f"{one.statement.line:>5}  {_beginning(one.statement.sql):<60} {one.ms:>9,.1f} ms", exact=True)
            for effect in _effects(one, first=one is measured[0]):
                console.line(f"       {effect}")
        console.line()
    for finding in report.findings:
        style = "red" if finding.severity == "breaking" else "yellow"
        place = f"{format_path(finding.file)}:{finding.line}:{finding.column}"
        console.line(f"{place}: {finding.severity} {finding.rule}", style)
        console.line(f"  {finding.message}")
        console.line(f"  safe way: {finding.suggestion}", exact=True)
        console.line()
    if report.run is not None:
        _show_run(console, report.run)
    for skip in report.skipped:
        console.line(f"no rows in {skip.table}: {skip.why}")
    if report.roles:
        console.line(f"roles made up for the trial: {', '.join(report.roles)}")
    console.line(_summary(report), None if report.ok else "bold red")


def _effects(measured: MeasuredStatement, *, first: bool) -> Iterator[str]:
    if measured.outside_transaction:
        yield "outside a transaction: locks not measured"
    elif not measured.locks and not first:
        yield "no lock beyond those of the statements before it"
    for lock in measured.locks:
        yield f"{lock.mode} on {lock.relation}"
    if measured.rewrites:
        yield f"rewrites: {', '.join(measured.rewrites)}"
    if measured.indexes:
        yield f"builds: {', '.join(measured.indexes)}"


def _show_run(console: Console, tried: CommandComparison) -> None:
    def outcome(one: Any) -> str:
        return f"{'passes' if one.passed else f'fails with {one.exit_code}'} ({one.seconds:.1f} s)"

    console.line(f"{tried.command}: {outcome(tried.before)} on the base, {outcome(tried.after)} on the new schema")
    if tried.verdict == "fails-before-too":
        console.line("  it fails on the base, too: nothing follows from that")
    if not tried.after.passed and tried.after.tail:
        console.line("  the end of its output on the new schema:")
        for line in tried.after.tail.splitlines():
            console.line(f"    {line.expandtabs()}")
    console.line()


def _report(console: Console, format_: Format, report: CheckReport) -> None:
    from stackctl.cli.report_formats import Report, ReportedFinding, print_report
    from stackctl.migrate.compatibility.contract_rules import RULES

    levels: dict[str, Level] = {"breaking": "error", "warning": "warning"}
    findings = [
        ReportedFinding(
            levels[one.severity],
            one.file,
            one.line,
            one.column,
            one.rule,
            one.message,
            one.suggestion,
        )
        for one in report.findings
    ]
    files = [migration.path for migration in report.new]
    rules: dict[str, tuple[str, Level]] = {id_: (rule.why, levels[rule.severity]) for id_, rule in RULES.items()}
    print_report(console, format_, Report("stackctl migrate check", files, findings, rules))
    console.info(_summary(report))


def _summary(report: CheckReport) -> str:
    new = format_count(len(report.new), "new migration", "new migrations")
    breaking, warnings = (_count(report.findings, severity) for severity in ("breaking", "warning"))
    if not report.findings:
        return f"{new} since {report.base}: nothing breaks"
    parts = [f"{breaking} breaking"] if breaking else []
    parts += [format_count(warnings, "warning", "warnings")] if warnings else []
    return f"{new} since {report.base}: {', '.join(parts)}. To let one pass: -- stackctl:allow RULE reason"


def _count(findings: Sequence[CompatibilityFinding], severity: str) -> int:
    return sum(finding.severity == severity for finding in findings)


def _beginning(sql: str) -> str:
    """The first words of a statement, on one line."""
    text = " ".join(sql.split())
    return text if len(text) <= _SQL_WIDTH else text[: _SQL_WIDTH - 1] + "…"

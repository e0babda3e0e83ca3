"""stackctl rules test"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.rules.decisions import format_cel, format_outcome
from stackctl.cli.rules.rules_file import RulesPath
from stackctl.core.errors import ConfigError, UsageError
from stackctl.core.sentences import format_count
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackctl.core.console import Console
    from stackctl.rules.part_coverage import PartCoverage
    from stackctl.rules.suites import Report, Result, Suite

_SHOWN = 30  # failing tests that are shown in full


@command(
    example="stackctl rules test\nstackctl rules test sign-up.rules-test.yaml --junit report.xml --strict\n"
    "stackctl rules test --watch --run disposable\nstackctl rules test --coverage",
)
def test(
    run: Run,
    suites: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Default: every *.rules-test.yaml here and below.")
    ] = None,
    rules: RulesPath = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail, too, on rules that are errors or that no test matches.")
    ] = False,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit report.")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Write what happens today into the suites as what is expected.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --record: show the change only.")] = False,
    run_: Annotated[
        str | None, typer.Option("--run", metavar="REGEX", help="Only tests whose names hold a match of it.")
    ] = None,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Show the comparisons that no test found true, or none false.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Run again when suites, rules or lists change, until Ctrl-C.")
    ] = False,
) -> None:
    """Run suites of sample users against the rules, and show what came out otherwise, and why.

    A test that names a rule which is not there fails.

    Prints each failing test with what was expected and what came, then the counts.
    Exit codes: 0 all passed, 1 some failed, 3 a suite or the rules file is bad, 5 a suite was changed while it was to
    be recorded.
    """
    from stackctl.rules import suites as all_suites

    if dry_run and not record:
        raise UsageError("--dry-run goes with --record", code="usage")
    if record and (strict or junit or coverage or watch):
        raise UsageError("--record takes neither --strict, --junit, --coverage nor --watch", code="usage")
    if run_ is not None and strict:
        raise UsageError("--strict asks for all tests; leave out --run", code="usage")
    wanted = _compile(run_) if run_ is not None else None

    def run_once() -> None:
        loaded = _load(run, suites or all_suites.find_suites(Path()), rules, wanted)
        report = all_suites.run_suites(loaded)
        if record:
            _record(run, loaded, report, dry_run=dry_run)
            return
        _finish(run, report, strict=strict, junit=junit, coverage=coverage, partly=wanted is not None)

    if watch:
        from stackctl.cli.rules.watch import watch_suites

        watch_suites(run, suites or [], lambda path: rules or _configured(run, path), run_once)
    else:
        run_once()


def _compile(pattern: str) -> Callable[[str], bool]:
    from stackctl.rules.cel.patterns import compile_pattern

    try:
        return compile_pattern(pattern)
    except ValueError as error:
        raise UsageError(f"--run: {error}", code="usage", hint="a regular expression as RE2 takes it") from None


def _load(run: Run, paths: Sequence[Path], rules: Path | None, wanted: Callable[[str], bool] | None) -> list[Suite]:
    """The suites, with those of their tests whose names are wanted."""
    from stackctl.rules import suites as all_suites

    if not paths:
        raise ConfigError(
            "there is no *.rules-test.yaml here or below",
            code="no-suites",
            hint="write one (docs/rules.md), or name a FILE",
        )
    loaded = [all_suites.load_suite(path, rules or _configured(run, path)) for path in paths]
    if wanted is None:
        return loaded
    chosen = [replace(one, tests=tuple(test for test in one.tests if wanted(test.name))) for one in loaded]
    chosen = [one for one in chosen if one.tests]
    if not chosen:
        raise UsageError("--run: no test has such a name", code="usage")
    return chosen


def _finish(run: Run, report: Report, *, strict: bool, junit: Path | None, coverage: bool, partly: bool) -> None:
    from stackctl.core.documents import Exact
    from stackctl.rules.part_coverage import count_parts

    held_against = report.strict_failures if strict else []
    if junit is not None:
        _write_junit(junit, report, held_against)
    parts = list(count_parts(report)) if coverage else []
    document = {
        "passed": len(report.results) - len(report.failed),
        "failed": len(report.failed),
        "tests": [_document(result) for result in report.results],
        "coverage": [
            {"file": str(one.file), "rule_id": one.rule_id, "enabled": one.enabled, "matched": one.matched,
             "decided": one.decided, "errors": one.errors}
            for one in report.coverage
        ],
        "strict": held_against,
    }  # fmt: skip
    if coverage:
        document["parts"] = [
            {"file": str(one.file), "rule_id": one.rule_id, "part": Exact(one.text), "true": one.true,
             "false": one.false, "errors": one.errors}
            for one in parts
        ]  # fmt: skip

    def show() -> None:
        if coverage:
            _show_parts(run.console, parts)
        _show(run.console, report, held_against, partly=partly)

    run.finish(document, show, ok=not report.failed and not held_against)


def _show_parts(console: Console, parts: Sequence[PartCoverage]) -> None:
    """What never was true, or never false; and how many parts were both."""
    uncovered = [one for one in parts if not one.is_covered]
    if uncovered:
        rows = [(one.rule_id, one.text, one.true, one.false, one.errors) for one in uncovered]
        console.table(
            (
                "rule",
                Column("part", folds=True, exact=True),
                Column("true", right=True),
                Column("false", right=True),
                Column("errors", right=True, spare=1),
            ),
            rows,
        )
        console.line()
    covered = len(parts) - len(uncovered)
    console.line(f"{covered:,} of {format_count(len(parts), 'comparison', 'comparisons')} came out both true and false")
    console.line()


def _configured(run: Run, path: Path) -> Path | None:
    """The configured rules file, for a suite that names none of its own."""
    text = path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else ""
    return None if re.search(r"^rules\s*:", text, re.MULTILINE) else run.settings.get("sign_up_rules")


def _document(result: Result) -> dict[str, Any]:
    return {
        "file": str(result.suite.path),
        "line": result.test.line,
        "name": result.test.name,
        "passed": result.passed,
        "expected": dict(result.test.expect),
        "actual": dict(result.actual),
        "unknown_rules": list(result.unknown_rules),
        "trace": _trace(result),
    }


def _trace(result: Result) -> list[dict[str, Any]]:
    """What each rule said; of a test that failed, with the parts of the conditions."""
    from stackctl.core.documents import Exact
    from stackctl.rules.cel.trace import trace_condition

    found: list[dict[str, Any]] = []
    for one in result.decision.evaluations:
        entry: dict[str, Any] = {"rule_id": one.rule.id, "status": one.status, "action": one.action}
        if one.error:
            entry["error"] = one.error
        if not result.passed and one.status in ("matched", "not_matched", "error"):
            entry["parts"] = [
                {"text": Exact(part.text), "value": part.value, "fields": part.fields}
                | ({"error": part.error} if part.error else {})
                for part in trace_condition(one.rule, result.decision.context)
            ]
        found.append(entry)
    return found


def _show(console: Console, report: Report, held_against: Sequence[str], *, partly: bool) -> None:
    """`partly`: not all tests were run, so that nothing is said of rules that none of them matches."""
    for result in report.failed[:_SHOWN]:
        console.line(f"FAILED {result.suite.path}:{result.test.line}: {result.test.name}", "bold red")
        for line in _difference(result, _ids(report, result)):
            console.line(f"  {line}")
        console.line(f"  {format_outcome(result.decision)}, because")
        for line in _because(result):
            console.line(f"    {line}", exact=True)
        console.line()
    if len(report.failed) > _SHOWN:
        console.line(f"and {len(report.failed) - _SHOWN:,} more that failed")
        console.line()
    unmatched = [one.rule_id for one in report.coverage if one.enabled and not one.matched]
    undecided = [
        one.rule_id for one in report.coverage if one.enabled and one.deciding and one.matched and not one.decided
    ]
    vacuous = sum(not one.test.expect for one in report.results)
    if vacuous:
        console.warn(
            f"{format_count(vacuous, 'test expects', 'tests expect')} nothing; --record writes what happens today"
        )
    if unmatched and not partly:
        console.line(f"never matched: {', '.join(unmatched)}", "yellow")
    if undecided and not partly:
        console.line(f"never decided: {', '.join(undecided)}", "yellow")
    for what in held_against:
        console.line(f"strict: {what}", "red")
    passed = len(report.results) - len(report.failed)
    console.line(
        f"{format_count(len(report.results), 'test', 'tests')}: {passed:,} passed"
        + (f", {len(report.failed):,} failed" if report.failed else ""),
        "red" if report.failed or held_against else "green",
    )


def _difference(result: Result, known: Sequence[str]) -> list[str]:
    import difflib

    lines = [
        line
        for key in result.differences
        for line in (f"- {key}: {_plain(result.test.expect[key])}", f"+ {key}: {_plain(result.actual[key])}")
    ]
    for id_ in result.unknown_rules:
        near = difflib.get_close_matches(id_, known, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        lines.append(f"there is no rule {id_} in {result.suite.rules}{meant}")
    return lines


def _ids(report: Report, result: Result) -> list[str]:
    """Of the rules that the result's suite is about."""
    return [rule.id for rule in report.rule_sets[result.suite.rules.resolve()].rules]


def _because(result: Result) -> list[str]:
    from stackctl.rules.cel.trace import trace_condition

    lines: list[str] = []
    for one in result.decision.evaluations:
        lines.append(f"{one.rule.id}: {one.status.replace('_', ' ')}" + (f": {one.error}" if one.error else ""))
        if one.status in ("matched", "not_matched", "error"):
            for part in trace_condition(one.rule, result.decision.context):
                seen = ", ".join(f"{name} = {value!r}" for name, value in part.fields.items())
                lines.append(
                    f"  {part.text} → {part.error or format_cel(part.value)}" + (f"   ({seen})" if seen else "")
                )
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "none" if value is None else format_cel(value) if isinstance(value, bool) else str(value)


def _record(run: Run, suites: Sequence[Suite], report: Report, *, dry_run: bool) -> None:
    from stackctl.core.documents import Exact
    from stackctl.core.text_diff import diff_texts
    from stackctl.rules.suites import record_results, write_suite

    changes: list[dict[str, Any]] = []
    for suite in suites:
        text = record_results(suite, [result for result in report.results if result.suite is suite])
        if text == suite.text:
            continue
        name = str(suite.path)
        changes.append({"file": name, "diff": Exact(diff_texts(suite.text, text, name))})
        if not dry_run:
            write_suite(suite, text)

    def show() -> None:
        for change in changes:
            run.console.diff(change["diff"].value)
        done = "would change" if dry_run else "changed"
        run.console.line(f"{format_count(len(changes), 'suite', 'suites')} {done}" if changes else "nothing to record")

    run.finish({"recorded": changes, "dry_run": dry_run}, show)


def _write_junit(path: Path, report: Report, held_against: Sequence[str]) -> None:
    from xml.etree import ElementTree

    root = ElementTree.Element("testsuites")
    by_file: dict[str, list[Result]] = {}
    for result in report.results:
        by_file.setdefault(str(result.suite.path), []).append(result)
    for file, results in by_file.items():
        failed = str(sum(not one.passed for one in results))
        suite = ElementTree.SubElement(root, "testsuite", name=file, tests=str(len(results)), failures=failed)
        for result in results:
            case = ElementTree.SubElement(
                suite, "testcase", classname=file, name=_xml(result.test.name), file=file, line=str(result.test.line)
            )
            if not result.passed:
                why = "; ".join(_difference(result, _ids(report, result)))
                failure = ElementTree.SubElement(case, "failure", message=_xml(why))
                failure.text = _xml("\n".join(_because(result)))
    if held_against:
        suite = ElementTree.SubElement(
            root, "testsuite", name="strict", tests=str(len(held_against)), failures=str(len(held_against))
        )
        for what in held_against:
            case = ElementTree.SubElement(suite, "testcase", classname="strict", name=_xml(what))
            ElementTree.SubElement(case, "failure", message=_xml(what))
    try:
        # A suite or rules file named by mistake would be gone.
        held = path.read_bytes() if path.is_file() else b""
        if held.strip() and not held.lstrip().startswith(b"<"):
            raise UsageError(f"--junit: {path} is there already, and is no report", code="usage", hint="name another")
        ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise UsageError(f"--junit: {path} can't be written: {error.strerror}", code="usage") from error


def _xml(text: str) -> str:
    """XML has no place for most control characters."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text)

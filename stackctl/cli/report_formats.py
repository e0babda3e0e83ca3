"""Findings as other programs read them: annotations of GitHub, GitLab's code quality, JUnit's XML, SARIF 2.1.0."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.etree import ElementTree

from stackctl import __version__
from stackctl.cli.github import format_annotation, format_path
from stackctl.core.sentences import escape_unprintable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stackctl.cli.github import Level
    from stackctl.core.console import Console

_SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_SARIF_LEVELS = {"error": "error", "warning": "warning", "notice": "note"}
_GITLAB_SEVERITIES = {"error": "critical", "warning": "major", "notice": "info"}


@dataclass(frozen=True)
class ReportedFinding:
    """One thing that is wrong; places count from 1. A notice makes nothing fail."""

    level: Level
    file: Path
    line: int
    column: int
    rule: str
    message: str
    safe_way: str

    @property
    def text(self) -> str:
        return f"{self.message}\nsafe way:\n{self.safe_way}" if self.safe_way else self.message


@dataclass(frozen=True)
class Report:
    """What one command found in `files`. `rules` says of each rule what it is about, and how bad."""

    command: str
    files: Sequence[Path]
    findings: Sequence[ReportedFinding]
    rules: Mapping[str, tuple[str, Level]]


def print_report(console: Console, format_: str, report: Report) -> None:
    """`format_` is github, gitlab, junit or sarif."""
    match format_:
        case "github":
            for one in report.findings:
                annotation = format_annotation(
                    one.level, one.message, safe_way=one.safe_way, file=one.file, line=one.line, column=one.column,
                    title=one.rule,
                )  # fmt: skip
                console.document(annotation)
        case "gitlab":
            console.json_document(_to_code_quality(report))
        case "junit":
            console.document(_to_junit(report))
        case _:
            console.json_document(_to_sarif(report))


def _to_code_quality(report: Report) -> list[dict[str, Any]]:
    return [
        {
            "description": one.message,
            "check_name": one.rule,
            "fingerprint": fingerprint,
            "severity": _GITLAB_SEVERITIES[one.level],
            "location": {"path": format_path(one.file), "lines": {"begin": one.line}},
        }
        for one, fingerprint in _list_with_fingerprints(report.findings)
    ]


def _to_sarif(report: Report) -> dict[str, Any]:
    places = {rule: place for place, rule in enumerate(report.rules)}
    results = [
        {
            "ruleId": one.rule,
            **({"ruleIndex": places[one.rule]} if one.rule in places else {}),
            "level": _SARIF_LEVELS[one.level],
            "message": {"text": one.text},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": _to_uri(one.file)},
                        "region": {"startLine": one.line, "startColumn": one.column},
                    }
                }
            ],
            "partialFingerprints": {"finding/v1": fingerprint},
        }
        for one, fingerprint in _list_with_fingerprints(report.findings)
    ]
    rules = [
        {"id": rule, "shortDescription": {"text": about}, "defaultConfiguration": {"level": _SARIF_LEVELS[level]}}
        for rule, (about, level) in report.rules.items()
    ]
    driver = {"name": "stackctl", "version": __version__, "rules": rules}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _to_junit(report: Report) -> str:
    """A test case for each finding, and one that passes for each file without."""
    failures = [one for one in report.findings if one.level != "notice"]
    clean = [file for file in report.files if file not in {one.file for one in report.findings}]
    suite = ElementTree.Element(
        "testsuite",
        name=report.command,
        tests=str(len(report.findings) + len(clean)),
        failures=str(len(failures)),
        errors="0",
    )
    for file in clean:
        ElementTree.SubElement(suite, "testcase", classname=_to_xml(format_path(file)), name="nothing found")
    for one in report.findings:
        path = _to_xml(format_path(one.file))
        case = ElementTree.SubElement(
            suite, "testcase", classname=path, name=f"{one.rule} at {one.line}:{one.column}", file=path,
            line=str(one.line),
        )  # fmt: skip
        if one.level == "notice":
            ElementTree.SubElement(case, "system-out").text = _to_xml(one.text)
            continue
        failure = ElementTree.SubElement(case, "failure", type=one.level, message=_to_xml(one.message))
        failure.text = _to_xml(one.text)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _list_with_fingerprints(findings: Sequence[ReportedFinding]) -> Iterator[tuple[ReportedFinding, str]]:
    """Each with a name that stays the same where lines are added above it."""
    met: Counter[tuple[str, str, str]] = Counter()
    for one in findings:
        what = (format_path(one.file), one.rule, one.message)
        text = "\0".join((*what, str(met[what])))
        met[what] += 1
        yield one, hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _to_uri(file: Path) -> str:
    path = format_path(file)
    return file.as_uri() if Path(path).is_absolute() else quote(path.encode("utf-8", "surrogateescape"))


def _to_xml(text: str) -> str:
    return escape_unprintable(text, keep="\t\n")

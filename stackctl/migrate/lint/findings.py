"""What lint says, as it is shown and sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from stackctl.migrate.lint.registry import Severity


@dataclass(frozen=True)
class LintFinding:
    """One thing that is wrong, with its place (from 1). `suggestion` is the SQL to write instead, or empty."""

    file: Path
    line: int
    column: int
    rule: str
    severity: Severity
    what: str
    why: str
    suggestion: str

    @property
    def message(self) -> str:
        return f"{self.what}: {self.why}"


def has_failures(findings: Iterable[LintFinding]) -> bool:
    """Errors and warnings make lint fail; advice does not."""
    return any(finding.severity != "advice" for finding in findings)


def github(finding: LintFinding, file: str) -> str:
    """The finding as a workflow command of GitHub Actions, one line."""
    level = {"error": "error", "warning": "warning", "advice": "notice"}[finding.severity]
    where = {"file": file, "line": finding.line, "col": finding.column, "title": finding.rule}
    properties = ",".join(f"{key}={_data(str(value), more=True)}" for key, value in where.items())
    text = finding.message + (f"\nsafe way:\n{finding.suggestion}" if finding.suggestion else "")
    return f"::{level} {properties}::{_data(text)}"


def _data(text: str, *, more: bool = False) -> str:
    for character, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        text = text.replace(character, code)
    return text.replace(":", "%3A").replace(",", "%2C") if more else text

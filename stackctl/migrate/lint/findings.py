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

"""What a compatibility check returns: its findings, what each statement did, and how the command fared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from stackctl.migrate.compatibility.contract_rules import Severity
    from stackctl.migrate.compatibility.sample_rows import SkippedTable
    from stackctl.migrate.compatibility.shell_command import CommandOutcome
    from stackctl.migrate.compatibility.statement_observer import MeasuredStatement
    from stackctl.migrate.files import Migration


@dataclass(frozen=True)
class CompatibilityFinding:
    """Something that hurts the running version (`breaking`) or may (`warning`), with its place, from 1."""

    file: Path
    line: int
    column: int
    rule: str
    severity: Severity
    message: str
    suggestion: str


@dataclass(frozen=True)
class CommandComparison:
    """The command before and after the new migrations. `broken_by`: the file since which it fails, if it passed."""

    command: str
    before: CommandOutcome
    after: CommandOutcome
    broken_by: Migration | None

    @property
    def verdict(self) -> Literal["passes", "broken", "fails-before-too", "fixed"]:
        if self.before.passed:
            return "passes" if self.after.passed else "broken"
        return "fixed" if self.after.passed else "fails-before-too"


@dataclass(frozen=True)
class CheckReport:
    """`new`: the migrations that were tried. `skipped`: tables that got no rows. `roles`: made up for the trial."""

    base: str
    new: tuple[Migration, ...]
    findings: tuple[CompatibilityFinding, ...]
    statements: tuple[MeasuredStatement, ...]
    run: CommandComparison | None
    skipped: tuple[SkippedTable, ...]
    roles: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not any(finding.severity == "breaking" for finding in self.findings)

"""Which comparisons of the conditions a run of suites has seen come out both ways."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.rules.cel.trace import list_parts
from stackctl.rules.cel.values import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stackctl.rules.suites import Report


@dataclass(frozen=True)
class PartCoverage:
    """How often a comparison or call yielded what, in the tests that reached its rule."""

    file: Path
    rule_id: str
    text: str
    true: int
    false: int
    errors: int

    @property
    def is_covered(self) -> bool:
        return self.true > 0 and self.false > 0


def count_parts(report: Report) -> Iterator[PartCoverage]:
    """Each part of each enabled rule's condition, in order of evaluation and of place."""
    reached: dict[tuple[Path, str], list[dict[str, object]]] = {}
    for result in report.results:
        fields = result.decision.context.fields()
        for one in result.decision.evaluations:
            if one.status in ("matched", "not_matched", "error"):
                reached.setdefault((result.suite.rules.resolve(), one.rule.id), []).append(fields)
    for file, rules in report.rule_sets.items():
        for rule in rules.ordered:
            for text, evaluate in list_parts(rule) if rule.enabled else ():
                counts: Counter[object] = Counter()
                for fields in reached.get((file, rule.id), ()):
                    try:
                        counts[evaluate({**fields, **rule.lists}) is True] += 1
                    except EvaluationError:
                        counts["error"] += 1
                yield PartCoverage(file, rule.id, text, counts[True], counts[False], counts["error"])

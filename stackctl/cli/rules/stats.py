"""stackctl rules stats"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.arguments import find_tenancy
from stackctl.cli.command import Run, command
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.core.console import Console
    from stackctl.rules.stored.stats import RuleStats, Stats

CELLS = 48  # of a sparkline, at the most
_LEVELS = "▁▂▃▄▅▆▇█"
_NONE = "·"


@command(example="stackctl rules stats\nstackctl rules stats --hours 168 --json")
def stats(
    run: Run,
    hours: Annotated[int, typer.Option("--hours", min=1, max=8760, help="How far to look back.")] = 48,
    tenancy: Annotated[str | None, typer.Option("--tenancy", metavar="TENANCY", help="Only this tenancy.")] = None,
) -> None:
    """How often each rule has acted: the last hours one by one, by action, and all time.

    Triggers are those that the application recorded with stackctl.record_sign_up_rule_trigger().

    Prints a row for each rule, with a bar for each hour.
    Exit codes: 0 printed; 4 the operated database can't be reached; 5 it was never migrated.
    """
    from stackctl.rules.stored.stats import read_stats as read

    with run.database() as conn:
        found = read(conn, hours, find_tenancy(conn, tenancy))
    run.finish(_document(found, hours), lambda: _show(run.console, found, hours))


def _document(found: Stats, hours: int) -> dict[str, Any]:
    return {
        "hours": hours,
        "since": found.since,
        "until": found.until,
        "rules": [
            {
                "tenancy": rule.tenancy,
                "rule_id": rule.rule_id,
                "total": sum(rule.total.values()),
                "total_by_action": rule.total,
                "recent": sum(rule.recent.values()),
                "recent_by_action": rule.recent,
                "hourly": rule.hourly,
                "first_at": rule.first_at,
                "last_at": rule.last_at,
            }
            for rule in found.rules
        ],
    }


def _show(console: Console, found: Stats, hours: int) -> None:
    if not found.rules:
        console.line("no trigger of a sign-up rule has been recorded")
        console.info("the application records them with stackctl.record_sign_up_rule_trigger()")
        return
    width = _hours_a_cell(hours)
    window = f"last {hours} h" if hours > 1 else "last hour"
    by = "" if width == 1 else f", {width} h a cell"
    for tenancy in dict.fromkeys(rule.tenancy for rule in found.rules):
        console.line(f"tenancy {tenancy}", style="bold")
        console.table(
            (
                "rule",
                f"{window}{by}",
                Column("recent", right=True),
                Column("all time", right=True, spare=2),
                Column("by action", folds=True, spare=1),
                Column("last", spare=3),
            ),
            [_row(rule, width) for rule in found.rules if rule.tenancy == tenancy],
        )
        console.line()


def _row(rule: RuleStats, width: int) -> tuple[object, ...]:
    recent, total = sum(rule.recent.values()), sum(rule.total.values())
    by_action = ", ".join(f"{action} {count:,}" for action, count in rule.total.items())
    return (rule.rule_id, draw_sparkline(rule.hourly, width), f"{recent:,}", f"{total:,}", by_action, rule.last_at)


def _hours_a_cell(hours: int) -> int:
    return -(-hours // CELLS)


def draw_sparkline(counts: Sequence[int], width: int = 1) -> str:
    """One character for each `width` counts, the last cell whole, scaled to the highest; a dot for none at all."""
    first = len(counts) % width
    cells = [sum(counts[:first])] if first else []
    cells += [sum(counts[start : start + width]) for start in range(first, len(counts), width)]
    highest = max(cells, default=0)
    return "".join(_LEVELS[-(-count * len(_LEVELS) // highest) - 1] if count else _NONE for count in cells)

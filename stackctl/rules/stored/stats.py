"""How often each sign-up rule has acted: the last hours one by one, and all time, from the recorded triggers.

Applications record them with `stackctl.record_sign_up_rule_trigger`; see docs/rules-stats.md.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from stackctl.core.errors import UsageError
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from uuid import UUID

    from stackctl.postgres.connect import Connection

_SQL = load_statements(__file__)


@dataclass(frozen=True)
class RuleStats:
    """One rule of one tenancy. Counts by action hold only actions that occurred; a rule that was edited has several.

    `hourly` are the triggers of each hour of the window, the oldest first; `recent` are those of the window by action.
    """

    tenancy: UUID
    rule_id: str
    total: dict[str, int]
    recent: dict[str, int]
    hourly: tuple[int, ...]
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True)
class Stats:
    """Whole hours in UTC: `since` is the beginning of the first, `until` the end of the one that is running."""

    since: datetime
    until: datetime
    rules: tuple[RuleStats, ...]


def read_stats(conn: Connection, hours: int, tenancy: UUID | None = None) -> Stats:
    """Every rule with a recorded trigger, by tenancy and rule id; of one tenancy, or of all.

    Raises UsageError `unknown-tenancy`, StateError `not-migrated` (inside a session).
    """
    with conn.transaction():  # in which now() stands still
        if tenancy is not None and conn.execute(_SQL["is_known_tenancy"], {"tenancy": tenancy}).fetchone() is None:
            raise UsageError(
                f"tenancy {tenancy} neither exists in the operated database nor has recorded triggers",
                code="unknown-tenancy",
                hint="`stackctl tenancies list` shows those that are there",
            )
        row = conn.execute(_SQL["current_hour"]).fetchone()
        assert row is not None
        (running,) = row
        found = conn.execute(_SQL["count_triggers"], {"tenancy": tenancy, "hours": hours, "until": running}).fetchall()
    by_rule: dict[tuple[UUID, str], list[_ActionCount]] = defaultdict(list)
    for of_tenancy, rule, *counted in found:
        by_rule[of_tenancy, rule].append(_ActionCount(*counted))
    until = running + timedelta(hours=1)
    rules = tuple(_to_rule_stats(*key, counted, hours) for key, counted in by_rule.items())
    return Stats(until - timedelta(hours=hours), until, rules)


@dataclass(frozen=True)
class _ActionCount:
    """One rule's triggers with one action; the hours that had any, counted back from the running one."""

    action: str
    total: int
    first_at: datetime
    last_at: datetime
    hours_ago: list[int] | None
    triggers: list[int] | None

    @property
    def by_hour(self) -> list[tuple[int, int]]:
        return list(zip(self.hours_ago or (), self.triggers or (), strict=True))


def _to_rule_stats(tenancy: UUID, rule_id: str, counted: list[_ActionCount], hours: int) -> RuleStats:
    hourly = [0] * hours
    for one in counted:
        for ago, triggers in one.by_hour:
            hourly[hours - 1 - ago] += triggers
    recent = {one.action: sum(triggers for _, triggers in one.by_hour) for one in counted}
    return RuleStats(
        tenancy=tenancy,
        rule_id=rule_id,
        total={one.action: one.total for one in counted},
        recent={action: triggers for action, triggers in recent.items() if triggers},
        hourly=tuple(hourly),
        first_at=min(one.first_at for one in counted),
        last_at=max(one.last_at for one in counted),
    )

"""Priorities that put rules into an order, with as few of them changed as possible."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from stackctl.rules.model import id_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.rules.model import Rule

_STEP = 10  # between priorities where there is room


def assign_priorities(rules: Sequence[Rule], moved: str | None = None) -> list[Rule]:
    """The same rules with priorities by which they are evaluated as they stand here; most keep the one they have.

    Where it is all the same, the one with the id `moved` changes rather than another.
    Equal priorities are used only where there is no whole number left between two that stay.
    """
    kept = _choose_kept(rules, moved)
    found = list(rules)
    for before, after in zip([-1, *kept], [*kept, len(rules)], strict=True):
        between = range(before + 1, after)
        above = rules[before] if before >= 0 else None
        below = rules[after] if after < len(rules) else None
        for place, priority in zip(
            between, _priorities_between([rules[at] for at in between], above, below), strict=True
        ):
            found[place] = replace(rules[place], priority=priority)
    return found


def _choose_kept(rules: Sequence[Rule], moved: str | None) -> list[int]:
    """The longest choice of rules that may keep their priorities, by place."""
    # best[j]: the worth of those kept up to j, j among them, and which was kept before it.
    worth = [1 if rule.id == moved else 2 for rule in rules]
    drops = _least_drops(rules)
    level = [rule.priority + drop for rule, drop in zip(rules, drops, strict=True)]
    best: list[tuple[int, int]] = []
    # For each rank of a level, the best of some that end at a level as high (a Fenwick tree), the first of equal ones.
    ranks = {one: rank for rank, one in enumerate(sorted(set(level), reverse=True), 1)}
    tree = [(0, 1)] * (len(ranks) + 1)  # none before it: above the first kept one, there is always room
    for j in range(len(rules)):
        at = ranks[level[j]]
        before = tree[0]
        while at:
            before = max(before, tree[at])
            at &= at - 1
        best.append((before[0] + worth[j], -before[1]))
        at = ranks[level[j]]
        while at < len(tree):
            tree[at] = max(tree[at], (best[j][0], -j))
            at += at & -at
    ends = [j for j in range(len(rules)) if level[j] >= drops[-1]]
    if not ends:
        return []
    at = max(ends, key=lambda j: best[j][0])
    kept: list[int] = []
    while at >= 0:
        kept.append(at)
        at = best[at][1]
    return kept[::-1]


def _least_drops(rules: Sequence[Rule]) -> list[int]:
    """How far each rule's priority is below the first one's at the least: neighbours whose ids ascend may share one."""
    found = [0]
    for one, other in pairwise(rules):
        found.append(found[-1] + (id_order(one.id) > id_order(other.id)))
    return found


def _priorities_between(between: Sequence[Rule], above: Rule | None, below: Rule | None) -> list[int]:
    number = len(between)
    if above is None:
        base = below.priority if below else 0
        return [base + _STEP * (number - at) for at in range(number)]
    room = above.priority - (below.priority if below else -1)
    if room > number:
        step = min(_STEP, room // (number + 1)) if below is None else 0
        return [above.priority - (step * (at + 1) if step else room * (at + 1) // (number + 1)) for at in range(number)]
    found: list[int] = []
    priority, id_ = above.priority, above.id
    for rule in between:
        priority, id_ = (priority if id_order(rule.id) > id_order(id_) else priority - 1), rule.id
        found.append(priority)
    return found

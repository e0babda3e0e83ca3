"""Decisions about users, and values of conditions, in a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stackctl.rules.decide import Decision


def format_cel(value: Any) -> str:
    """A value as CEL writes it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def format_outcome(decision: Decision) -> str:
    """A decision in a few words."""
    by = f" by {decision.decided_by}" if decision.decided_by else " (no rule decides)"
    restricted = f", restricted by {decision.restricted_by}" if decision.restricted_by else ""
    return f"{'allowed' if decision.should_allow else 'rejected'}{by}{restricted}"

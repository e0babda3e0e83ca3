"""Rules about who may do what, and about what runs inside other statements: rights, row security, triggers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RuleMatch, rule
from stackctl.migrate.lint.wording import suggest_allow, suggest_later_release
from stackctl.migrate.parser.facts import (
    OwnedDropped,
    PolicyChanged,
    RightsRevoked,
    RoutineDefined,
    RowSecurityChanged,
    TriggerChanged,
)

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import FileState

_INSIDE = "it runs inside statements of the previous version"


@rule("grant-revoked", "warning", "rights are revoked",
      why="a previous version that connects as that role is refused", fact=RightsRevoked)  # fmt: skip
def grant_revoked(fact: RightsRevoked, state: FileState) -> RuleMatch | None:
    if fact.name and (
        state.has_created(fact.kind, fact.name)
        or (fact.kind == "table" and state.has_created("view", fact.name))
        # PUBLIC may call a new function: to take that back is part of making it.
        or (fact.kind == "function" and ("function", fact.name) in state.whole.created)
    ):
        return None
    what = f"rights on {fact.kind} {fact.name} are revoked" if fact.name else f"rights on every {fact.kind} are revoked"
    if fact.kind == "role":
        what = "a role is revoked"
    return suggest_later_release("grant-revoked", what, fact.text, "no released version needs it: …")


@rule("drop-owned", "error", "DROP OWNED",
      why="it drops every table, function and right of the role, whichever those are on the day",
      fact=OwnedDropped)  # fmt: skip
def drop_owned(fact: OwnedDropped, state: FileState) -> RuleMatch | None:
    safe = f"-- drop by name what is to go, or hand it over:\nREASSIGN OWNED BY {fact.role} TO CURRENT_USER;"
    return RuleMatch(f"DROP OWNED BY {fact.role}", safe)


@rule("row-security-enabled", "warning", "row security is enabled, or forced on the owner",
      why="roles see only rows that a policy lets through, and without one none at all",
      fact=RowSecurityChanged)  # fmt: skip
def row_security_enabled(fact: RowSecurityChanged, state: FileState) -> RuleMatch | None:
    if fact.how not in ("ENABLE", "FORCE") or state.has_created("table", fact.table):
        return None
    if fact.how == "FORCE" and state.has_secured(fact.table):
        return None
    what = "enabled" if fact.how == "ENABLE" else "forced on the owner of"
    return suggest_later_release(
        "row-security-enabled",
        f"row security is {what} {'on ' if fact.how == 'ENABLE' else ''}{fact.table}",
        fact.text,
        "every released version sets what the policies ask for: …",
    )


@rule("row-security-disabled", "warning", "row security is disabled, or no longer forced on the owner",
      why="every role that may read the table sees all of its rows", fact=RowSecurityChanged)  # fmt: skip
def row_security_disabled(fact: RowSecurityChanged, state: FileState) -> RuleMatch | None:
    if fact.how not in ("DISABLE", "NO FORCE") or state.has_created("table", fact.table):
        return None
    what = f"row security of {fact.table}: {fact.how}"
    return RuleMatch(what, suggest_allow("row-security-disabled", "nobody may see more than before: …", fact.text))


@rule("policy-changed", "warning", "a policy is made, changed or dropped",
      why="the previous version may see other rows than before", fact=PolicyChanged)  # fmt: skip
def policy_changed(fact: PolicyChanged, state: FileState) -> RuleMatch | None:
    table, name = fact.table, fact.table.sibling(fact.name).shown
    if not state.is_live(table) or state.has_secured(table):
        return None
    if fact.how == "CREATE" and state.has_dropped_part(table, fact.name):
        return None  # said where it was dropped
    how = {"CREATE": "made", "ALTER": "changed", "DROP": "dropped"}[fact.how]
    if fact.how == "DROP" and (table, fact.name) in state.whole.policies:
        how = "replaced"
    what = f"policy {name} of {table} is {how}"
    return RuleMatch(what, suggest_allow("policy-changed", "both let the same rows through: …", fact.text))


@rule("trigger-added", "advice", "a trigger is added",
      why=f"{_INSIDE}, and making it waits for every write on the table, and all later ones wait behind it",
      fact=TriggerChanged)  # fmt: skip
def trigger_added(fact: TriggerChanged, state: FileState) -> RuleMatch | None:
    if not fact.how.startswith("CREATE") or not state.is_live(fact.table):
        return None
    if (fact.table, fact.name) in state.schema.triggers or state.has_dropped_part(fact.table, fact.name):
        return None
    return _to_match("trigger-added", fact, "added", "it neither fails nor waits for what they do: …")


@rule("trigger-dropped", "warning", "a trigger is dropped",
      why="the previous version may rely on what it did", fact=TriggerChanged)  # fmt: skip
def trigger_dropped(fact: TriggerChanged, state: FileState) -> RuleMatch | None:
    if fact.how != "DROP" or not state.is_live(fact.table) or (fact.table, fact.name) in state.whole.triggers:
        return None
    return _to_match("trigger-dropped", fact, "dropped", "no released version relies on it: …")


@rule("trigger-changed", "warning", "a trigger is replaced, renamed, disabled or enabled",
      why=f"{_INSIDE}, and what it does is different now; while one is disabled, rows go by that nobody catches up on",
      fact=TriggerChanged)  # fmt: skip
def trigger_changed(fact: TriggerChanged, state: FileState) -> RuleMatch | None:
    key = (fact.table, fact.name)
    if not state.is_live(fact.table) or (fact.how == "ENABLE" and state.has_dropped_part(*key)):
        return None
    match fact.how:
        case "ALTER" | "ENABLE" | "DISABLE":
            how = {"ALTER": "changed", "ENABLE": "enabled", "DISABLE": "disabled"}[fact.how]
        case "DROP" if key in state.whole.triggers:
            how = "replaced"
        case "CREATE OR REPLACE" if key in state.schema.triggers:
            how = "replaced"
        case _:
            return None
    found = _to_match("trigger-changed", fact, how, "what it does is no less: …")
    safe = "-- CREATE OR REPLACE TRIGGER leaves no moment without it; let both versions bear what it does"
    return replace(found, safe=safe) if fact.how == "DROP" else found


def _to_match(rule_id: str, fact: TriggerChanged, how: str, reason: str) -> RuleMatch:
    name = fact.name.upper() if fact.name in ("all", "user") else fact.table.sibling(fact.name).shown
    return RuleMatch(f"trigger {name} of {fact.table} is {how}", suggest_allow(rule_id, reason, fact.text))


@rule("security-definer-path", "warning", "SECURITY DEFINER without a search_path of its own",
      why="whoever calls it chooses which tables and functions its names mean, and it uses them with the rights of its "
      "owner",
      fact=RoutineDefined)  # fmt: skip
def security_definer_path(fact: RoutineDefined, state: FileState) -> RuleMatch | None:
    if not fact.definer or fact.path_set:
        return None
    return RuleMatch(
        f"function {fact.name} is SECURITY DEFINER and has no search_path",
        "-- behind SECURITY DEFINER:\n--   SET search_path = pg_catalog, pg_temp",
    )

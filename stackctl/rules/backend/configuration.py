"""The rules in a tenancy's configuration: read as a rule set, and replaced by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackctl.backend.tenancies import find_invalid_keys, merge_config, remove_paths
from stackctl.rules.model import ACTIONS, DEFAULT_ACTIONS, MAX_PRIORITY, Action, Rule, RuleSet, explain_bad_id

if TYPE_CHECKING:
    from stackctl.backend.tenancies import ConfigLayers

_RULES = ("auth", "signUpRules")
_DEFAULT = ("auth", "signUpRulesDefaultAction")
_KEYS = {"enabled", "displayName", "priority", "condition", "action"}


def read_rules(layers: ConfigLayers) -> tuple[RuleSet, list[str]]:
    """The rules that the backend enforces, and what of them breaks its own schema, each said with what it takes."""
    problems = [
        f"the backend does not read the configuration at all: it refuses the key {path} of the {name}"
        for name, config in (("branch", layers.branch_config), ("environment", layers.environment_config))
        for path in find_invalid_keys(config or {})
    ]
    default, rules = layers.get(*_DEFAULT), layers.get(*_RULES)
    if default not in (None, *DEFAULT_ACTIONS):
        problems.append(f"{'.'.join(_DEFAULT)} is none of {', '.join(DEFAULT_ACTIONS)}; it takes allow")
    if not isinstance(rules, dict | None):
        problems.append(f"{'.'.join(_RULES)} is not an object; it has no rules")
    entries = rules if isinstance(rules, dict) else {}
    found = [_to_rule(id_, value, problems) for id_, value in sorted(entries.items()) if value is not None]
    return RuleSet("reject" if default == "reject" else "allow", tuple(rule for rule in found if rule)), problems


def _to_rule(id_: str, value: Any, problems: list[str]) -> Rule | None:
    """The rule with what the backend takes by default for what is missing or wrong; None where it can be no rule."""
    place = ".".join((*_RULES, id_))
    if (wrong := explain_bad_id(id_)) or not isinstance(value, dict):
        problems.append(f"{place} is left out: {wrong or 'it is not an object'}")
        return None

    def take(name: str, inner: dict[str, Any], key: str, expected: type, what: str, default: Any = None) -> Any:
        given = inner.get(key)
        if given is None or isinstance(given, expected):
            return default if given is None else given
        problems.append(f"{place}.{name} is not {what}; taken as {default if default is not None else 'missing'}")
        return default

    if value.get("action") is None:
        problems.append(f"{place} has no action; it takes allow")
    action = take("action", value, "action", dict, "an object", {})
    type_ = action.get("type", "allow")
    if type_ not in ACTIONS:
        problems.append(f"{place}.action.type is none of {', '.join(ACTIONS)}; it does nothing, as log")
        type_ = "log"
    return Rule(
        id=id_,
        display_name=take("displayName", value, "displayName", str, "a text") or id_,
        enabled=take("enabled", value, "enabled", bool, "true or false", default=False),
        priority=_to_priority(place, value.get("priority"), problems),
        condition=take("condition", value, "condition", str, "a text") or None,
        action=Action(type_, take("action.message", action, "message", str, "a text")),
    )


def _to_priority(place: str, given: Any, problems: list[str]) -> int:
    if given is None:
        return 0
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    found = int(given) if is_number and 0 <= given <= MAX_PRIORITY and given == int(given) else 0
    if not is_number or isinstance(given, float) or found != given:
        problems.append(f"{place}.priority is not a whole number from 0 on; taken as {found}")
    return found


def to_config(layers: ConfigLayers, rules: RuleSet) -> dict[str, Any]:
    """The environment's JSON with these rules as the only ones; no key but the rules' own is touched.

    What a rule has besides, that stackctl does not know, it keeps.
    """
    found = layers.get(*_RULES)
    kept = found if isinstance(found, dict) else {}
    own: dict[str, Any] = {}
    for rule in rules.rules:
        before = kept.get(rule.id)
        others = {key: value for key, value in before.items() if key not in _KEYS} if isinstance(before, dict) else {}
        message = {} if rule.action.message is None else {"message": rule.action.message}
        own[rule.id] = {
            **others,
            "enabled": rule.enabled,
            "displayName": rule.display_name,
            "priority": rule.priority,
            "condition": rule.condition or "",
            "action": {"type": rule.action.type, **message},
        }
    config = remove_paths(layers.environment_config or {}, (".".join(_RULES), ".".join(_DEFAULT)))
    if not isinstance(merge_config(config, layers.branch_config).get(_RULES[0], {}), dict):
        # No key with dots gets behind what is no object.
        return {**config, _RULES[0]: {_RULES[1]: own, _DEFAULT[1]: rules.default_action}}
    # Keys with dots are applied last, over whatever `auth` says, in this layer and in the branch's.
    return {**config, ".".join(_RULES): own, ".".join(_DEFAULT): rules.default_action}

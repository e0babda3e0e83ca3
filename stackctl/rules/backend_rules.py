"""The rules in a tenancy's configuration: read as a rule set, and replaced by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackctl.backend.tenancies import remove_paths
from stackctl.core.errors import ConfigError, StateError
from stackctl.rules.model import ACTIONS, DEFAULT_ACTIONS, Action, Rule, RuleSet

if TYPE_CHECKING:
    from stackctl.backend.tenancies import ConfigLayers

_RULES = ("auth", "signUpRules")
_DEFAULT = ("auth", "signUpRulesDefaultAction")
_KEYS = {"enabled", "displayName", "priority", "condition", "action"}


def read_rules(layers: ConfigLayers) -> RuleSet:
    """The rules that the backend enforces. Raises StateError `invalid-rules` for what is no rule."""
    default = layers.get(*_DEFAULT)
    rules = layers.get(*_RULES) or {}
    if default not in (None, *DEFAULT_ACTIONS):
        raise _invalid(".".join(_DEFAULT), f"is none of {', '.join(DEFAULT_ACTIONS)}")
    if not isinstance(rules, dict):
        raise _invalid(".".join(_RULES), "is not an object")
    found = [_to_rule(id_, value) for id_, value in sorted(rules.items()) if value is not None]
    return RuleSet(default or "allow", tuple(found))


def _to_rule(id_: str, value: Any) -> Rule:
    place = ".".join((*_RULES, id_))
    if not isinstance(value, dict):
        raise _invalid(place, "is not an object")
    action = value.get("action") or {}
    priority = value.get("priority") or 0
    type_ = action.get("type") if isinstance(action, dict) else None
    if type_ not in ACTIONS:
        raise _invalid(f"{place}.action.type", f"is none of {', '.join(ACTIONS)}")
    if isinstance(priority, bool) or not isinstance(priority, int) or priority < 0:
        raise _invalid(f"{place}.priority", "is not a whole number of at least 0")
    for key in ("displayName", "condition"):
        if not isinstance(value.get(key), str | None):
            raise _invalid(f"{place}.{key}", "is not a text")
    message = action.get("message")
    return Rule(
        id=id_,
        display_name=value.get("displayName") or id_,
        enabled=bool(value.get("enabled", False)),
        priority=priority,
        condition=value.get("condition") or None,
        action=Action(type_, message if isinstance(message, str) else None),
    )


def _invalid(place: str, what: str) -> StateError:
    return StateError(
        f"{place} in the tenancy's configuration {what}", code="invalid-rules", hint="correct it in the backend"
    )


def to_config(layers: ConfigLayers, rules: RuleSet) -> dict[str, Any]:
    """The environment's JSON with these rules as the only ones; no key but the rules' own is touched.

    What a rule has besides, that stackctl does not know, it keeps. Raises ConfigError `invalid-rule-id`.
    """
    found = layers.get(*_RULES)
    kept = found if isinstance(found, dict) else {}
    own: dict[str, Any] = {}
    for rule in rules.rules:
        if "." in rule.id:
            raise ConfigError(
                f"the id {rule.id} has a dot, which the backend would read as a path",
                code="invalid-rule-id",
                hint="name the rule otherwise",
            )
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
    # Keys with dots are applied last, over whatever `auth` says, in this layer and in the branch's.
    return {**config, ".".join(_RULES): own, ".".join(_DEFAULT): rules.default_action}

"""Rules in a tenancy's configuration: what takes effect of every mixture of spellings, held against a model of how the
backend renders its configuration (lay one level over the other, fill in defaults, make nested objects of it)."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from stackctl.backend.tenancies import ConfigLayers
from stackctl.rules.backend.configuration import read_rules, to_config
from stackctl.rules.model import Action, Rule, RuleSet

RULE_DEFAULTS = {"enabled": False, "priority": 0, "action": {"type": "allow"}}
DEFAULTS = {
    "auth": {"signUpRules": lambda: RULE_DEFAULTS, "signUpRulesDefaultAction": "allow", "otp": {"allowSignIn": False}}
}
NOTHING = object()


def render(branch: Any, environment: Any) -> Any:
    """The `auth` that the backend works with, of two levels in the order in which PostgreSQL hands out their keys."""
    laid = {
        key: value
        for key, value in in_stored_order(branch).items()
        if not any(key == one or key.startswith(f"{one}.") for one in environment)
    }
    return flatten(fill(DEFAULTS, {**laid, **in_stored_order(environment)})).get("auth")


def in_stored_order(config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    return {key: in_stored_order(config[key]) for key in sorted(config, key=lambda one: (len(one), one))}


def plain(defaults: Any) -> Any:
    if callable(defaults):
        return {}
    return {key: plain(value) for key, value in defaults.items()} if isinstance(defaults, dict) else defaults


def fill(defaults: Any, config: dict[str, Any]) -> dict[str, Any]:
    found = plain(defaults)
    for key, value in config.items():
        base, at = defaults, found
        for part in key.split("."):
            base = base() if callable(base) else base.get(part, NOTHING)
            if not callable(base) and not isinstance(base, dict):
                break
            at = at.setdefault(part, plain(base)) if isinstance(at, dict) else at
        else:
            value = fill(base, value) if isinstance(value, dict) else value
        found[key] = value
    return found


def flatten(config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    found: dict[str, Any] = {}
    for key in sorted(config, key=lambda one: one.count(".")):
        *path, last = key.split(".")
        at: Any = found
        for part in path:
            at = at.get(part) if isinstance(at, dict) else None
        if isinstance(at, dict):
            if config[key] is None:
                at.pop(last, None)
            else:
                at[last] = flatten(config[key])
    return found


def to_rules(auth: Any) -> RuleSet:
    rules = auth.get("signUpRules", {}) if isinstance(auth, dict) else {}
    found = [
        Rule(
            id_, id_, one.get("enabled") is True, one.get("priority", 0), one.get("condition"),
            Action(one["action"]["type"] if one.get("action") else "allow"),
        )
        for id_, one in sorted(rules.items())
    ]  # fmt: skip
    return RuleSet(auth.get("signUpRulesDefaultAction", "allow") if isinstance(auth, dict) else "allow", tuple(found))


def draw_config(chance: random.Random) -> dict[str, Any]:
    def rule() -> Any:
        parts = {"enabled": chance.random() < 0.5, "priority": chance.randrange(9), "condition": "x"}
        found: dict[str, Any] = {key: value for key, value in parts.items() if chance.random() < 0.6}
        if chance.random() < 0.5:
            found["action"] = chance.choice([None, {"type": "log"}, {}])
            found.pop("action") if found["action"] == {} else None
        return found

    def rules() -> Any:
        found: dict[str, Any] = {id_: chance.choice([rule(), None]) for id_ in "ab" if chance.random() < 0.6}
        if chance.random() < 0.3:
            found["b.priority"] = 7
        return found

    def auth() -> Any:
        found: dict[str, Any] = {"otp": {"allowSignIn": True}} if chance.random() < 0.5 else {}
        if chance.random() < 0.6:
            found["signUpRules"] = rules()
        if chance.random() < 0.3:
            found["signUpRules.a.enabled"] = True
        if chance.random() < 0.3:
            found["signUpRulesDefaultAction"] = "reject"
        return found

    drawn = {
        "auth": lambda: chance.choice([auth(), auth(), None, {}]),
        "auth.signUpRules": lambda: chance.choice([rules(), rules(), None]),
        "auth.signUpRules.a": lambda: chance.choice([rule(), None]),
        "auth.signUpRules.b": rule,
        "auth.signUpRules.a.enabled": lambda: chance.choice([True, None]),
        "auth.signUpRules.b.priority": lambda: chance.randrange(9),
        "auth.signUpRules.a.action": lambda: chance.choice([{"type": "reject"}, None]),
        "auth.signUpRules.b.action.type": lambda: "restrict",
        "auth.signUpRulesDefaultAction": lambda: chance.choice(["allow", "reject", None]),
        "auth.otp.allowSignIn": lambda: True,
        "payments.testMode": lambda: False,
    }
    return {key: draw() for key, draw in drawn.items() if chance.random() < 0.25}


def test_what_is_read_and_written_is_what_takes_effect() -> None:
    chance = random.Random(19)
    seen = 0
    for _ in range(4000):
        branch, environment = draw_config(chance), draw_config(chance)
        layers = ConfigLayers(UUID(int=1), "p", "main", branch, environment)
        found, _ = read_rules(layers)
        rendered = render(branch, environment)
        assert found == to_rules(rendered), (branch, environment)
        seen += len(found.rules)
        wanted = RuleSet(
            chance.choice(["allow", "reject"]),
            tuple(
                Rule(id_, id_, chance.random() < 0.5, 3, "y", Action("log")) for id_ in "ac" if chance.random() < 0.6
            ),
        )
        config = to_config(layers, wanted)
        after = render(branch, config)
        assert to_rules(after) == wanted, (branch, environment, config)
        assert read_rules(replace(layers, environment_config=config))[0] == wanted
        if isinstance(rendered, dict):
            assert after.get("otp") == rendered.get("otp"), (branch, environment, config)
    assert seen > 2000


def test_a_key_that_leads_into_a_rule_that_is_not_there_has_no_effect() -> None:
    a = {"enabled": True, "priority": 1, "condition": "x", "action": {"type": "log"}}
    layers = ConfigLayers(
        UUID(int=1), "p", "main", None, {"auth.signUpRules": {"a": a}, "auth.signUpRules.gone.enabled": True}
    )
    assert [rule.id for rule in read_rules(layers)[0].rules] == ["a"]
    layers = replace(layers, environment_config={"auth.signUpRules.left.enabled": True})
    assert read_rules(layers)[0].rules == (Rule("left", "left", True, 0, None, Action("allow")),)


@pytest.mark.parametrize(
    ("entry", "rule", "said"),
    [
        ({"priority": 2.0}, {"priority": 2}, "x.priority is not a whole number from 0 on; taken as 2"),
        ({"priority": 2.5}, {}, "x.priority is not a whole number from 0 on; taken as 0"),
        ({"priority": -1}, {}, "taken as 0"),
        ({"priority": "7"}, {}, "taken as 0"),
        ({"priority": True}, {}, "taken as 0"),
        ({"action": None}, {"action": Action("allow")}, "x has no action; it takes allow"),
        ({"action": "log"}, {"action": Action("allow")}, "x.action is not an object"),
        ({"action": {"type": "add_metadata"}}, {}, "x.action.type is none of allow, reject, restrict, log"),
        ({"action": {"type": "log", "message": 5}}, {}, "x.action.message is not a text"),
        ({"enabled": "yes"}, {"enabled": False}, "x.enabled is not true or false"),
        ({"condition": 5}, {"condition": None}, "x.condition is not a text"),
        ({"displayName": []}, {}, "x.displayName is not a text"),
    ],
)
def test_what_breaks_the_schema_is_told_and_taken_as_the_backend_does(
    entry: dict[str, Any], rule: dict[str, Any], said: str
) -> None:
    whole = {"enabled": True, "condition": "c", "action": {"type": "log"}, **entry}
    layers = ConfigLayers(UUID(int=1), "p", "main", {"auth": {"signUpRules": {"x": whole}}}, None)
    found, problems = read_rules(layers)
    assert (found.rules, len(problems), said in problems[0]) == (
        (replace(Rule("x", "x", True, 0, "c", Action("log")), **rule),), 1, True,
    )  # fmt: skip
    after = replace(layers, environment_config=to_config(layers, found))
    assert read_rules(after) == (found, [])


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ({"signUpRules": 5}, ["auth.signUpRules is not an object"]),
        ({"signUpRules": {"x": 5}}, ["auth.signUpRules.x is left out: it is not an object"]),
        ({"signUpRules": {"my rule": {}}}, ["refuses the key auth.signUpRules.my rule of the branch", "left out"]),
        ({"signUpRules": {"x" * 64: {}}}, ["up to 63 letters"]),
        ({"signUpRulesDefaultAction": "deny"}, ["is none of allow, reject; it takes allow"]),
        ("text", []),
    ],
)
def test_what_can_be_no_rule_is_left_out(auth: Any, said: list[str]) -> None:
    found, problems = read_rules(ConfigLayers(UUID(int=1), "p", "main", {"auth": auth}, {}))
    assert (found, len(problems)) == (RuleSet("allow", ()), len(said))
    assert all(one in problem for one, problem in zip(said, problems, strict=True))

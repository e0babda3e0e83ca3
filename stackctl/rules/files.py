"""The rules file. A bad one is one error that names every mistake, with its line."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, cast

import yaml

from stackctl.errors import ConfigError
from stackctl.rules.model import ACTIONS, DEFAULTS, Action, ActionType, Default, Rule, RuleSet

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MOST_BYTES = 8 << 20
_TOP = ("default_action", "rules")
_RULE = ("display_name", "enabled", "priority", "condition", "action")
_ACTION = ("type", "message")


def load(path: Path) -> RuleSet:
    """Read a rules file. Raises ConfigError (`rules-unreadable`, `invalid-rules`)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} can't be read: {error.strerror}",
            code="rules-unreadable",
            hint="name a rules file with --rules, or set sign_up_rules in stackctl.yaml",
        ) from error
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{path} is larger than {MOST_BYTES >> 20} MB", code="rules-unreadable")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}:{line}: not UTF-8", code="rules-unreadable", hint="save the file as UTF-8"
        ) from error
    return parse(text, str(path))


def parse(text: str, name: str) -> RuleSet:
    """The rules in a file's text. Raises ConfigError (`invalid-rules`)."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or "not YAML"
        raise _invalid([(line, f"{problem}")], name) from error
    except RecursionError as error:
        raise _invalid([(1, "nested too deeply")], name) from error
    reader = _Reader()
    found = reader.rule_set(node)
    if reader.mistakes:
        raise _invalid(reader.mistakes, name)
    return found


def _invalid(mistakes: list[tuple[int, str]], name: str) -> ConfigError:
    shown = "\n".join(f"{name}:{line}: {what}" for line, what in sorted(mistakes))
    return ConfigError(
        shown,
        code="invalid-rules",
        hint="a rule is `id: {condition: …, action: {type: reject}}`; see docs/rules.md",
        details={"findings": [{"file": name, "line": line, "message": what} for line, what in sorted(mistakes)]},
    )


class _Reader:
    def __init__(self) -> None:
        self.mistakes: list[tuple[int, str]] = []

    def rule_set(self, node: yaml.Node | None) -> RuleSet:
        if node is None:
            return RuleSet("allow", ())
        top = self._mapping(node, "the file", _TOP)
        default = self._one_of(top.get("default_action"), "default_action", DEFAULTS, "allow")
        rules = top.get("rules")
        found: list[Rule] = []
        if rules is not None and not _is_null(rules):
            for key, value in self._pairs(rules, "rules"):
                rule = self._rule(key, value)
                if rule is not None:
                    found.append(rule)
        return RuleSet(cast("Default", default), tuple(found))

    def _rule(self, key: yaml.Node, node: yaml.Node) -> Rule | None:
        id_ = str(key.value)
        if not id_.strip():
            self._wrong(key, "a rule needs an id")
            return None
        keys = self._mapping(node, f"rule {id_}", _RULE)
        if not isinstance(node, yaml.MappingNode):
            return None
        condition = keys.get("condition")
        action = self._mapping(keys["action"], f"action of {id_}", _ACTION) if "action" in keys else {}
        if "action" not in keys:
            self._wrong(key, f"rule {id_} has no action: {{type: {' | '.join(ACTIONS)}}}")
        elif "type" not in action:
            self._wrong(keys["action"], f"the action of {id_} has no type: {', '.join(ACTIONS)}")
        kind = self._one_of(action.get("type"), f"action of {id_}", ACTIONS, "log")
        return Rule(
            id=id_,
            display_name=self._text(keys.get("display_name"), f"display_name of {id_}") or id_,
            enabled=self._boolean(keys.get("enabled"), f"enabled of {id_}"),
            priority=self._priority(keys.get("priority"), id_),
            condition=self._text(condition, f"condition of {id_}"),
            action=Action(cast("ActionType", kind), self._text(action.get("message"), f"message of {id_}")),
            line=_line(condition or key),
        )

    def _pairs(self, node: yaml.Node, what: str) -> Iterable[tuple[yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            self._wrong(node, f"{what} is a mapping of keys, not {_shape(node)}")
            return
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._wrong(key, f"a key of {what} is a word")
            elif key.value in seen:
                self._wrong(key, f"{what}: {key.value} is there twice")
            else:
                seen.add(key.value)
                yield key, value

    def _mapping(self, node: yaml.Node, what: str, known: tuple[str, ...]) -> dict[str, yaml.Node]:
        found: dict[str, yaml.Node] = {}
        for key, value in self._pairs(node, what):
            if key.value not in known:
                near = difflib.get_close_matches(str(key.value), known, n=1)
                meant = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
                self._wrong(key, f"{what} has no key {key.value}{meant}")
            elif not _is_null(value):
                found[key.value] = value
        return found

    def _one_of(self, node: yaml.Node | None, what: str, known: tuple[str, ...], default: str) -> str:
        if node is None:
            return default
        if isinstance(node, yaml.ScalarNode) and node.value in known:
            return node.value
        shown = str(node.value) if isinstance(node, yaml.ScalarNode) else _shape(node)
        near = difflib.get_close_matches(shown, known, n=1)
        meant = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
        self._wrong(node, f"{what}: {shown} is unknown; {meant}")
        return default

    def _text(self, node: yaml.Node | None, what: str) -> str | None:
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode):
            self._wrong(node, f"{what} is text, not {_shape(node)}")
            return None
        return str(node.value)

    def _boolean(self, node: yaml.Node | None, what: str) -> bool:
        if node is None:
            return True
        value = _scalar(node)
        if not isinstance(value, bool):
            self._wrong(node, f"{what} is true or false")
            return True
        return value

    def _priority(self, node: yaml.Node | None, id_: str) -> int:
        if node is None:
            return 0
        value = _scalar(node)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self._wrong(node, f"priority of {id_} is a whole number of at least 0")
            return 0
        return value

    def _wrong(self, node: yaml.Node, what: str) -> None:
        self.mistakes.append((node.start_mark.line + 1, what))


def _scalar(node: yaml.Node) -> Any:
    return yaml.SafeLoader("").construct_object(node) if isinstance(node, yaml.ScalarNode) else None


def _line(node: yaml.Node) -> int:
    """Of a value's first line; a block begins below its | or >."""
    return node.start_mark.line + (2 if getattr(node, "style", None) in ("|", ">") else 1)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _shape(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"

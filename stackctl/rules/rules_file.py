"""The rules file. A bad one is one error that names every mistake, with its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

import yaml

from stackctl.core.errors import ConfigError
from stackctl.core.yaml_reader import Reader, is_null, read_text, to_scalar
from stackctl.rules.lists import read_list
from stackctl.rules.model import (
    ACTIONS,
    DEFAULT_ACTIONS,
    FIELDS,
    MAX_PRIORITY,
    Action,
    ActionType,
    DefaultAction,
    Rule,
    RuleSet,
)

if TYPE_CHECKING:
    from stackctl.rules.cel.values import NamedList

_TOP = ("default_action", "lists", "rules")
_RULE = ("display_name", "enabled", "priority", "condition", "action")
_ACTION = ("type", "message")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
# Words that CEL keeps for itself.
_RESERVED = re.compile(
    "as|break|const|continue|else|false|for|function|if|import|in|let|loop|namespace|null|package|return|true|var|void"
    "|while"
)


def load_rules(path: Path) -> RuleSet:
    """Read a rules file. Raises ConfigError (`rules-unreadable`, `invalid-rules`)."""
    hint = "name a rules file with --rules, or set sign_up_rules in stackctl.yaml"
    return parse_rules(read_text(path, code="rules-unreadable", hint=hint), str(path))


def parse_rules(text: str, name: str) -> RuleSet:
    """The rules in a file's text. Raises ConfigError (`invalid-rules`)."""
    reader = _Reader(Path(name).parent)
    found = reader.read_rules(reader.compose(text))
    if reader.mistakes:
        hint = "a rule is `id: {condition: …, action: {type: reject}}`; see docs/rules.md"
        raise reader.to_error(name, code="invalid-rules", hint=hint)
    return found


def find_list_files(path: Path) -> list[Path]:
    """The files that a rules file names as lists, there or not, whatever else is wrong with it."""
    try:
        root = Reader().compose(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return []
    top = {str(key.value): value for key, value in root.value} if isinstance(root, yaml.MappingNode) else {}
    lists = top.get("lists")
    named = lists.value if isinstance(lists, yaml.MappingNode) else ()
    return [path.parent / value.value for _, value in named if isinstance(value, yaml.ScalarNode) and value.value]


class _Reader(Reader):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._lists: dict[str, NamedList] = {}

    def read_rules(self, node: yaml.Node | None) -> RuleSet:
        if node is None:
            return RuleSet("allow", ())
        top = self.read_mapping(node, "the file", _TOP)
        default = self.read_choice(top.get("default_action"), "default_action", DEFAULT_ACTIONS, "allow")
        if "lists" in top:
            for key, value in self.read_pairs(top["lists"], "lists"):
                self._read_list(key, value)
        rules = top.get("rules")
        found: list[Rule] = []
        if rules is not None and not is_null(rules):
            for key, value in self.read_pairs(rules, "rules"):
                rule = self._read_rule(key, value)
                if rule is not None:
                    found.append(rule)
        return RuleSet(cast("DefaultAction", default), tuple(found))

    def _read_list(self, key: yaml.Node, node: yaml.Node) -> None:
        name, file = str(key.value), self.read_string(node, f"list {key.value}")
        if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
            self.add_mistake(key, f"{name} can't be the name of a list: letters, digits and _, and no word of CEL")
        elif name in FIELDS:
            self.add_mistake(key, f"{name} is a field of the user; name the list otherwise")
        elif not file:
            self.add_mistake(node, f"list {name} names no file: {name}: ./{name}.txt")
        else:
            try:
                self._lists[name] = read_list(name, self._folder / file)
            except ConfigError as error:
                self.add_mistake(node, f"list {name}: {error.message}")

    def _read_rule(self, key: yaml.Node, node: yaml.Node) -> Rule | None:
        id_ = str(key.value)
        if not id_.strip():
            self.add_mistake(key, "a rule needs an id")
            return None
        keys = self.read_mapping(node, f"rule {id_}", _RULE)
        if not isinstance(node, yaml.MappingNode):
            return None
        condition = keys.get("condition")
        action = self.read_mapping(keys["action"], f"action of {id_}", _ACTION) if "action" in keys else {}
        if "action" not in keys:
            self.add_mistake(key, f"rule {id_} has no action: {{type: {' | '.join(ACTIONS)}}}")
        elif "type" not in action:
            self.add_mistake(keys["action"], f"the action of {id_} has no type: {', '.join(ACTIONS)}")
        kind = self.read_choice(action.get("type"), f"action of {id_}", ACTIONS, "log")
        return Rule(
            id=id_,
            display_name=self.read_string(keys.get("display_name"), f"display_name of {id_}") or id_,
            enabled=self.read_boolean(keys.get("enabled"), f"enabled of {id_}"),
            priority=self._read_priority(keys.get("priority"), id_),
            condition=self.read_string(condition, f"condition of {id_}"),
            action=Action(cast("ActionType", kind), self.read_string(action.get("message"), f"message of {id_}")),
            line=_first_line(condition or key),
            lists=self._lists,
        )

    def _read_priority(self, node: yaml.Node | None, id_: str) -> int:
        if node is None:
            return 0
        value = to_scalar(node)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.add_mistake(node, f"priority of {id_} is a whole number of at least 0")
            return 0
        if value > MAX_PRIORITY:
            self.add_mistake(node, f"priority of {id_} is at most {MAX_PRIORITY}")
            return 0
        return value


def _first_line(node: yaml.Node) -> int:
    """Of a value's first line; a block begins below its | or >."""
    return node.start_mark.line + (2 if getattr(node, "style", None) in ("|", ">") else 1)

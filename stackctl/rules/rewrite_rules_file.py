"""A rules file's text with other rules in it: what does not change stays as it is, comments and layout included."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import lru_cache
from io import StringIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import yaml

from stackctl.core.errors import ConfigError
from stackctl.core.yaml_reader import Reader, is_null
from stackctl.rules.rules_file import parse_rules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackctl.rules.model import Rule, RuleSet

_INDENT = 2
_ANCHOR = re.compile(r"(?<=[\s\[{,:-])&([\w-]+)")
_COMMA = re.compile(r"\s*,")
_DUMPER = yaml.SafeDumper(StringIO(), allow_unicode=True)


def rewrite_rules(text: str, name: str, rules: RuleSet) -> str:
    """`text`, so that it reads as `rules`: values are replaced, rules added at the end, or taken out, in place.

    Comments stay, also those of a rule that goes; JSON stays JSON, and a new file is JSON if it is called so. Raises
    ConfigError: `invalid-rules` for a text that is no rules file, `edit-by-hand` where a value is an alias.
    """
    return rewrite_read_rules(text, name, parse_rules(text, name), rules)[0]


def rewrite_read_rules(text: str, name: str, old: RuleSet, rules: RuleSet) -> tuple[str, RuleSet]:
    """As `rewrite_rules`, of a text that was read as `old`; and what the new text reads as."""
    if _is_same(old, rules):
        return text, old
    if not text.strip() and name.endswith(".json"):
        text = "{}\n"
    editor = _Editor(text, name)
    editor.apply(old, rules)
    found = editor.text()
    try:
        new = parse_rules(found, name)
    except ConfigError:  # an alias has lost its anchor, for one
        raise editor.to_error() from None
    if not _is_same(new, rules):
        raise editor.to_error()
    return found, new


def _is_same(one: RuleSet, other: RuleSet) -> bool:
    def rules(found: RuleSet) -> dict[str, Rule]:
        return {rule.id: replace(rule, line=0, condition=rule.condition or None) for rule in found.rules}

    return one.default_action == other.default_action and rules(one) == rules(other)


def _edit_by_hand_error(name: str, line: int, why: str = "written so that it can't be changed in place") -> ConfigError:
    return ConfigError(
        f"{name}:{line}: {why}",
        code="edit-by-hand",
        hint="anchors, aliases and unusual layouts are for an editor; then run `stackctl rules check`",
    )


class _Editor:
    """Collects changes by place in the text, which are made all at once."""

    def __init__(self, text: str, name: str) -> None:
        self._text = text
        self._name = name
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._json = _is_json(text)
        self._changes: list[tuple[int, int, str]] = []

    def text(self) -> str:
        found = self._text
        # From the end on. At one place, what is taken out goes before what comes in; insertions keep their order.
        for start, end, new in (one for _, one in sorted(enumerate(self._changes), key=_from_the_end, reverse=True)):
            found = found[:start] + new + found[end:]
        return found

    def to_error(self) -> ConfigError:
        """Why the changes do not make of the text what they should: its first line, and an alias of what goes."""
        for start, end, _ in sorted(self._changes):
            for anchor in _ANCHOR.finditer(self._text, start, end):
                if alias := re.compile(rf"\*{re.escape(anchor[1])}(?![\w-])").search(self._text, end):
                    why = f"&{anchor[1]} would go, which *{anchor[1]} in line {self._line_of(alias.start())} takes over"
                    return _edit_by_hand_error(self._name, self._line_of(anchor.start()), why)
        return _edit_by_hand_error(self._name, self._line_of(min(self._changes)[0] if self._changes else 0))

    def _line_of(self, at: int) -> int:
        return self._text.count("\n", 0, at) + 1

    def apply(self, old: RuleSet, new: RuleSet) -> None:
        root = Reader().compose(self._text)
        if isinstance(root, yaml.MappingNode) and root.flow_style and not root.value:
            rules = {rule.id: _values(rule) for rule in new.rules}
            whole = self._flow({"default_action": new.default_action, "rules": rules})
            self._changes.append((root.start_mark.index, root.end_mark.index, whole))
            return
        if root is None or is_null(root):
            self._append(self._line(0, "default_action", new.default_action) + self._rules_block(new))
            return
        assert isinstance(root, yaml.MappingNode)
        if old.default_action != new.default_action:
            self._set(root, {"default_action": new.default_action})
        before = {rule.id: rule for rule in old.rules}
        after = {rule.id: rule for rule in new.rules}
        rules = _value(root, "rules")
        if rules is None:
            self._insert_rules(root, new)
            return
        if is_null(rules):
            self._changes.append((rules.start_mark.index, rules.end_mark.index, ""))
            end = self._end_of_line(rules)
            blocks = "".join(self._block(rule, _INDENT) for rule in new.rules)
            self._changes.append((end, end, self._newline + blocks.removesuffix(self._newline)))
            return
        assert isinstance(rules, yaml.MappingNode)
        stay = [value for key, value in rules.value if key.value in after]
        if rules.flow_style and not stay:
            entries = self._flow({id_: _values(rule) for id_, rule in after.items()})
            self._changes.append((rules.start_mark.index, rules.end_mark.index, entries))
            return
        for place, (key, _) in enumerate(rules.value):
            if key.value not in after:
                self._remove(rules, place, first=not any(one.value in after for one, _ in rules.value[:place]))
        for id_, rule in after.items():
            if id_ not in before:
                self._add(rules, rule, stay[-1] if stay else None)
            elif changes := _differences(before[id_], rule):
                node = _value(rules, id_)
                if not isinstance(node, yaml.MappingNode):  # it comes from a merge key
                    raise _edit_by_hand_error(self._name, rules.start_mark.line + 1)
                self._set(node, changes)

    def _flow(self, value: Any) -> str:
        return json.dumps(value, ensure_ascii=not _is_printable(value)) if self._json else _to_flow(value)

    def _set(self, node: yaml.MappingNode, values: Mapping[str, Any]) -> None:
        # What goes inside a value goes before what comes behind it, at the same place.
        for key, value in sorted(values.items(), key=lambda one: not isinstance(one[1], dict)):
            old = _value(node, key)
            if value is None:
                self._drop(node, key)
                continue
            if old is None:
                self._insert(node, key, value)
                continue
            if not _key(node, key).end_mark.index <= old.start_mark.index <= node.end_mark.index:
                raise _edit_by_hand_error(self._name, _key(node, key).start_mark.line + 1)
            if isinstance(value, dict) and isinstance(old, yaml.MappingNode):
                self._set(old, value)
            else:
                start, end = old.start_mark.index, self._end(old)
                gap = " " if start == end and self._text[start - 1] == ":" else ""  # `key:` without a value
                self._changes.append((start, end, gap + self._flow(value)))

    def _insert_rules(self, root: yaml.MappingNode, rules: RuleSet) -> None:
        """Behind the other keys, and so before the end of the document, should one be marked."""
        if root.flow_style:
            self._insert(root, "rules", {rule.id: _values(rule) for rule in rules.rules})
            return
        end = self._end_of_line(root.value[-1][1])
        self._changes.append((end, end, self._newline + self._rules_block(rules).removesuffix(self._newline)))

    def _drop(self, node: yaml.MappingNode, name: str) -> None:
        place = next((place for place, (key, _) in enumerate(node.value) if key.value == name), None)
        if place is None:  # it comes from a merge key
            raise _edit_by_hand_error(self._name, node.start_mark.line + 1)
        key, value = node.value[place]
        if node.flow_style or place == 0:
            self._remove(node, place, first=place == 0)
            return
        # With the line's end before it rather than its own, where something may be inserted.
        start = key.start_mark.index - key.start_mark.column - len(self._newline)
        self._changes.append((start, self._end_of_line(value), ""))

    def _insert(self, node: yaml.MappingNode, key: str, value: Any) -> None:
        if node.flow_style:
            self._append_pair(node, node.value[-1][1], key, value)
        else:
            end = self._end_of_line(node.value[-1][1])
            line = self._line(node.value[0][0].start_mark.column, key, value)
            self._changes.append((end, end, self._newline + line.removesuffix(self._newline)))

    def _append_pair(self, node: yaml.MappingNode, behind: yaml.Node, key: str, value: Any) -> None:
        """A pair in braces; in JSON, where no comment can stand between, in a line of its own as the others."""
        first, end, gap = node.value[0][0].start_mark, self._end(behind), " "
        if self._json and not self._text[first.index - first.column : first.index].strip():
            gap = self._newline + self._text[first.index - first.column : first.index]
        self._changes.append((end, end, f",{gap}{self._flow(key)}: {self._flow(value)}"))

    def _add(self, rules: yaml.MappingNode, rule: Rule, behind: yaml.Node | None) -> None:
        if rules.flow_style:
            assert behind is not None
            self._append_pair(rules, behind, rule.id, _values(rule))
            return
        first = rules.value[0][0].start_mark
        block = self._block(rule, first.column)
        if behind:
            end = self._end_of_line(behind)
            self._changes.append((end, end, self._newline + block.removesuffix(self._newline)))
        else:
            start = first.index - first.column
            self._changes.append((start, start, block))

    def _remove(self, rules: yaml.MappingNode, place: int, *, first: bool) -> None:
        """`first`: no rule before it stays."""
        key, value = rules.value[place]
        start, end = key.start_mark.index, self._end(value)
        if not rules.flow_style:
            start -= key.start_mark.column
            # An alias's own place is nowhere, but it stands in the key's line; the value, where its anchor is.
            last = value if value.start_mark.index >= key.end_mark.index else key
            end = min(self._end_of_line(last) + len(self._newline), len(self._text))
        elif self._has_comment(rules):
            end = found.end() if (found := _COMMA.match(self._text, end)) else end
        elif not first:
            start = self._end(rules.value[place - 1][1])
        elif place + 1 < len(rules.value):
            end = rules.value[place + 1][0].start_mark.index
        self._changes.append((start, end, ""))

    def _has_comment(self, node: yaml.MappingNode) -> bool:
        """Whether a comment stands between the values of a mapping in braces."""
        return any(
            "#" in self._text[self._end(one) : other.start_mark.index] for (_, one), (other, _) in pairwise(node.value)
        )

    def _append(self, block: str) -> None:
        gap = "" if not self._text or self._text.endswith("\n") else self._newline
        self._changes.append((len(self._text), len(self._text), gap + block))

    def _rules_block(self, rules: RuleSet) -> str:
        return f"rules:{self._newline}" + "".join(self._block(rule, _INDENT) for rule in rules.rules)

    def _block(self, rule: Rule, indent: int) -> str:
        lines = f"{' ' * indent}{_to_flow(rule.id)}:{self._newline}"
        return lines + "".join(self._line(indent + _INDENT, key, value) for key, value in _values(rule).items())

    def _line(self, indent: int, key: str, value: Any) -> str:
        return f"{' ' * indent}{_to_flow(key)}: {_to_flow(value)}{self._newline}"

    def _end(self, node: yaml.Node) -> int:
        """Where a value really ends: a block's own mark stands at the next token, behind comments and empty lines."""
        if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            last = node.value[-1]
            return self._end(last[1] if isinstance(last, tuple) else last)
        if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
            return len(self._text[: node.end_mark.index].rstrip())
        return node.end_mark.index

    def _end_of_line(self, node: yaml.Node) -> int:
        """Behind the comment that stands in the value's last line, before the line's end."""
        at = self._text.find("\n", self._end(node))
        at = len(self._text) if at < 0 else at
        return at - 1 if self._newline == "\r\n" and self._text[at - 1 : at] == "\r" else at


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_printable(value: Any) -> bool:
    """Whether YAML reads the value's texts as JSON does when no character is escaped."""
    if isinstance(value, dict):
        return all(_is_printable(one) for pair in value.items() for one in pair)
    return not isinstance(value, str) or value.isprintable()


def _from_the_end(change: tuple[int, tuple[int, int, str]]) -> tuple[int, int, int]:
    order, (start, end, _) = change
    return start, end, order


def _key(node: yaml.MappingNode, name: str) -> yaml.Node:
    return next(key for key, _ in node.value if key.value == name)


def _value(node: yaml.MappingNode, name: str) -> yaml.Node | None:
    return next((value for key, value in node.value if key.value == name), None)


def _values(rule: Rule) -> dict[str, Any]:
    """A rule as it is written, without what reads the same when left out."""
    named = {"display_name": rule.display_name} if rule.display_name != rule.id else {}
    off = {} if rule.enabled else {"enabled": False}
    condition = {"condition": rule.condition} if rule.condition else {}
    message = {"message": rule.action.message} if rule.action.message is not None else {}
    return {**named, **off, "priority": rule.priority, **condition, "action": {"type": rule.action.type, **message}}


def _differences(before: Rule, after: Rule) -> dict[str, Any]:
    found: dict[str, Any] = {
        key: getattr(after, key)
        for key in ("display_name", "enabled", "priority", "condition")
        if getattr(after, key) != getattr(before, key)
    }
    action = {
        key: getattr(after.action, key)
        for key in ("type", "message")
        if getattr(after.action, key) != getattr(before.action, key)
    }
    return found | ({"action": action} if action else {})


def _to_flow(value: Any) -> str:
    """A value in one line that may stand anywhere."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_to_flow(key)}: {_to_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, str) and not value.isprintable():
        # As YAML reads it, too; its own way to quote would break the line.
        return '"' + "".join(f"\\U{ord(one):08x}" if one > "\uffff" else json.dumps(one)[1:-1] for one in value) + '"'
    if isinstance(value, int):
        return str(value).lower()  # True is a number to Python
    if isinstance(value, str) and _is_plain(value):
        return value
    return yaml.safe_dump([value], default_flow_style=True, width=1 << 30, allow_unicode=True).strip()[1:-1]


@lru_cache(maxsize=64)  # keys, above all
def _is_plain(value: str) -> bool:
    """Whether `safe_dump`, which takes a hundred times as long, would write the text as it stands."""
    analysis = _DUMPER.analyze_scalar(value)
    implicit = _DUMPER.resolve(yaml.ScalarNode, value, (True, False))
    return bool(analysis.allow_flow_plain) and implicit == "tag:yaml.org,2002:str"

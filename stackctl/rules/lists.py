"""Lists in files of their own, which conditions use by name: read, and written out for the backend."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from stackctl.core.errors import ConfigError
from stackctl.core.yaml_reader import read_text
from stackctl.rules.cel.nodes import Binary, Name, walk
from stackctl.rules.cel.parse import MAX_CHARACTERS, ConditionSyntaxError, parse
from stackctl.rules.cel.values import NamedList

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stackctl.rules.cel.values import Lists
    from stackctl.rules.model import Rule, RuleSet

MAX_ENTRIES = 500_000
# The backend sets no limit, and reads the whole condition for each sign-up: some 3 ms for 1,000 characters. No more
# than what can be read back from there.
MAX_EXPANDED = MAX_CHARACTERS  # characters of a condition with its lists written out

_COMMENT = re.compile(r"(?:^|\s)#.*")
_UNWRITABLE = re.compile(r'["\\\x00-\x1f\x7f]')
_LONG_LIST = re.compile(r'\[(?:"[^"\\]*", ){10,}"[^"\\]*"\]')


def read_list(name: str, path: Path) -> NamedList:
    """One entry a line; `#` begins a comment, empty lines are nothing. Raises ConfigError `invalid-list`."""
    hint = "one entry a line, # for comments; see docs/rules.md"
    text = read_text(path, code="invalid-list", hint=hint)
    if "\0" in text:
        raise ConfigError(f"{path} holds NUL characters", code="invalid-list", hint=hint)
    if text.count("\n") > 2 * MAX_ENTRIES or len(entries := _read_entries(text)) > MAX_ENTRIES:
        raise ConfigError(f"{path} has more than {MAX_ENTRIES:,} entries", code="invalid-list", hint=hint)
    if not entries:
        raise ConfigError(f"{path} has no entries", code="invalid-list", hint=hint)
    return NamedList(name, entries)


def _read_entries(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        entry = (_COMMENT.sub("", line) if "#" in line else line).strip()
        if entry:
            found.setdefault(entry, number)
    return found


def find_uses(condition: str, lists: Lists) -> Iterator[tuple[Binary, NamedList]]:
    """Where a condition says `… in NAME`, in order of place; nothing of a condition that can't be read."""
    if not lists:
        return
    try:
        tree = parse(condition)
    except ConditionSyntaxError:
        return
    for node in walk(tree):
        match node:
            case Binary(operator="in", right=Name(name=name)) if name in lists:
                yield node, lists[name]
            case _:
                pass


def expand_lists(rule: Rule) -> str:
    """The rule's condition with its lists written out.

    Raises ConfigError `list-too-long`, and `invalid-list` for an entry that the backend would read as something else.
    """
    found = condition = rule.condition or ""
    uses = sorted(find_uses(condition, rule.lists), key=lambda one: -one[0].right.span.start)
    for node, one in uses:
        span = node.right.span
        found = f"{found[: span.start]}{_write_list(one)}{found[span.end :]}"
    if uses and len(found) > MAX_EXPANDED:
        names = ", ".join(dict.fromkeys(one.name for _, one in reversed(uses)))
        raise ConfigError(
            f"{rule.id}: with {names} written out, as the backend needs it, the condition has {len(found):,} "
            f"characters; {MAX_EXPANDED:,} are the most",
            code="list-too-long",
            hint="shorten the list: the backend reads all of it for each sign-up",
        )
    return found


@lru_cache(maxsize=16)
def _write_entries(entries: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{entry}"' for entry in entries) + "]"


def _write_list(one: NamedList) -> str:
    for entry, line in one.entries.items():
        if _UNWRITABLE.search(entry):
            raise ConfigError(
                f"line {line} of the list {one.name}: {entry!r} holds a quote, a backslash or a control character, "
                "which the backend can't compare",
                code="invalid-list",
                hint="remove the entry",
            )
    return _write_entries(tuple(one.entries))


def expand_rules(rules: RuleSet) -> RuleSet:
    """The rules as the backend takes them. Raises ConfigError as `expand_lists` does."""
    return replace(rules, rules=tuple(replace(rule, condition=expand_lists(rule)) for rule in rules.rules))


def restore_lists(rules: RuleSet, file: RuleSet) -> RuleSet:
    """The backend's rules, with the file's condition where it is the same with its lists written out."""
    known = {rule.id: rule for rule in file.rules}
    return replace(
        rules,
        rules=tuple(
            replace(rule, condition=known[rule.id].condition)
            if rule.id in known and _is_expansion(rule.condition, known[rule.id])
            else rule
            for rule in rules.rules
        ),
    )


def _is_expansion(condition: str | None, rule: Rule) -> bool:
    try:
        return bool(rule.lists) and condition == expand_lists(rule)
    except ConfigError:  # it could never have been pushed
        return False


def break_lists(text: str) -> str:
    """Rules as text, each long list one entry a line, so that a difference shows the entries."""
    return _LONG_LIST.sub(lambda found: found[0].replace('", "', '",\n"'), text)

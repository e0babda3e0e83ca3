"""What is found in a database, by the words of the file that did it, so that `lint` and `check` say the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stackctl.migrate.compatibility.contract_rules import REWRITES, Breach
from stackctl.migrate.lint import linter
from stackctl.migrate.lint.schema_state import FileState, SchemaState
from stackctl.migrate.parser import facts as f
from stackctl.migrate.parser.statements import parse_statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stackctl.migrate.files import Migration
    from stackctl.migrate.schema.catalog import Catalog

# Of what a rule says that it is dropped, renamed or taken, and which of its names say which.
_KINDS = {
    "drop-table": "table", "rename-table": "table", "drop-view": "view", "drop-type": "type",
    "drop-function": "function", "function-changed": "function", "drop-sequence": "sequence", "drop-column": "column",
    "rename-column": "column", "rename-enum-value": "value", "trigger-added": "trigger", "trigger-dropped": "trigger",
    "grant-revoked": "owner",
}  # fmt: skip
_NAMES = {"column": slice(2), "value": slice(2), "owner": slice(1, 2)}


class FileWords:
    """What a migration says it drops and renames."""

    def __init__(self, migration: Migration, schema: str) -> None:
        self._said: dict[tuple[str, ...], tuple[str, str]] = {}
        read = [
            parse_statement(statement.sql, schema).facts for piece in migration.pieces for statement in piece.statements
        ]
        facts = [fact for found in read for fact in found]
        self._linted = _lint(read)
        made = {(fact.kind, fact.name) for fact in facts if isinstance(fact, (f.ObjectCreated, f.ObjectReplaced))}
        for fact in facts:
            match fact:
                case f.ObjectDropped(kind="function", name=name) if ("function", name) in made:
                    self._said["function", name.name] = ("function-changed", "")
                case f.ObjectDropped(kind=kind, name=name):
                    self._said[kind, name.name] = (f"drop-{kind}", "")
                case f.ObjectRenamed(kind=kind, name=name, to=to):
                    self._said[kind, name.name] = ("rename-table" if kind == "view" else f"rename-{kind}", to)
                case f.ColumnDropped(table=table, column=column):
                    self._said["column", table.name, column] = ("drop-column", "")
                case f.ColumnRenamed(table=table, column=column, to=to):
                    self._said["column", table.name, column] = ("rename-column", to)
                case f.TriggerChanged(how="ALTER", table=table):
                    self._said["trigger", table.name] = ("trigger-changed", "")
                case f.OwnedDropped(role=role):
                    self._said["owner", role.strip('"')] = ("drop-owned", "")
                case f.EnumValueRenamed(type=type_, value=value, to=to):
                    self._said["value", type_.name, value] = ("rename-enum-value", to)
                case _:
                    pass
        # Nobody can tell what SQL does that is put together when it runs.
        self._clear = not any(isinstance(fact, (f.DynamicSql, f.UnknownStatement)) for fact in facts)

    def list_statements(self, rule: str) -> frozenset[int]:
        """The numbers of those of which lint says this."""
        return frozenset(number for number, rules in enumerate(self._linted) if rule in rules)

    def reword(self, breach: Breach, now: Catalog) -> Iterator[Breach]:
        """The breach as the file would put it: what looks renamed may be dropped, and the other way round."""
        kind = _KINDS.get(breach.rule, "")
        names = breach.names[_NAMES.get(kind, slice(1))]
        rule, to = self._said.get((kind, *names), ("", ""))
        if not rule and breach.rule == "rename-enum-value" and self._clear:
            rule = "drop-enum-value"
        if not rule or rule == breach.rule:
            yield breach
            return
        if kind in ("trigger", "owner"):
            yield replace(breach, rule=rule)
            return
        shown = f"{kind} {'.'.join(names)}" if kind != "value" else f"value '{names[1]}' of {names[0]}"
        if rule == "function-changed":
            how = "is dropped and made again"
        else:
            how = f"becomes {to}" if to else "is dropped"
        yield Breach(rule, f"{shown} {how}", (*names, *([to] if to else [])))
        if breach.rule == "rename-column" and rule == "drop-column":
            # The column that looked like its new name is one of its own.
            column = now.relations[names[0]].columns[breach.names[2]]
            if column.not_null and column.default is None:
                what = f"column {names[0]}.{column.name} is new, NOT NULL and without a default"
                yield Breach("not-null-without-default", what, (names[0], column.name))


def _lint(read: Sequence[Sequence[f.Fact]]) -> list[set[str]]:
    """By statement: the rules that have something to say."""
    state = FileState(SchemaState(), read_file=lambda: (fact for facts in read for fact in facts))
    found: list[set[str]] = []
    for facts in read:
        found.append(set())
        for fact in facts:
            found[-1] |= {rule for rule in linter.RULES if _finds(rule, [fact], state)}
            state.apply_fact(fact)
    return found


def name_rewrite(statement: str, schema: str) -> str:
    """Lint's word for what writes a table anew in the statement."""
    facts = parse_statement(statement, schema).facts
    state = FileState(SchemaState())
    for rule in REWRITES[:-1]:
        if _finds(rule, facts, state):
            return rule
    # Nothing but a domain is left, of which the statement alone tells nothing.
    added = any(isinstance(fact, f.ColumnAdded) for fact in facts)
    return "domain-column-added" if added else "table-rewrite"


def _finds(rule: str, facts: Iterable[f.Fact], state: FileState) -> bool:
    found = linter.RULES[rule]
    return any(isinstance(fact, found.facts) and found.check and found.check(fact, state) for fact in facts)

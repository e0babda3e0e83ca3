"""Files → findings."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stackctl.core.errors import ConfigError
from stackctl.migrate import files
from stackctl.migrate.allow_comments import allows
from stackctl.migrate.compatibility.contract_rules import ALLOWABLE
from stackctl.migrate.lint.findings import Finding
from stackctl.migrate.lint.registry import RULES, Rule
from stackctl.migrate.lint.rules import (
    columns,
    constraints,
    drops,
    indexes,
    partitions,
    renames,
    rows,
    tables,
    text,
    transactions,
    types,
)
from stackctl.migrate.lint.schema_state import History, Seen
from stackctl.migrate.parser import statements
from stackctl.migrate.parser.facts import EnumValueAdded, EnumValueUsed, Fact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from stackctl.migrate.files import Piece, Statement
    from stackctl.migrate.lint.database_facts import Asked

# Importing them registers their rules, in the order of the alphabet.
FAMILIES = (
    columns, constraints, drops, indexes, partitions, renames, rows, tables, text, transactions, types,
)  # fmt: skip
_SEVERITIES = {"error": 0, "warning": 1, "advice": 2}


@dataclass(frozen=True)
class Source:
    """A migration to lint; unless `report`, it is read only for what it tells about the files after it.

    `problem`: why it, or the whole folder that `path` is then, can't be read.
    """

    path: Path
    name: str
    report: bool = True
    problem: ConfigError | None = None


def lint(sources: Iterable[Source], *, schema: str, asked: Asked | None = None) -> list[Finding]:
    """The findings in one folder's files, which are in order. Nothing is executed.

    `schema` is the one that names without a schema stand for. `asked` answers what only a database can tell.
    """
    history = History()
    findings: list[Finding] = []
    for source in sources:
        found = _File(source, schema, history, asked).findings()
        if source.report:
            findings += found
    return findings


@dataclass(frozen=True)
class _Hit:
    """A finding with the number of its statement, before comments are heard."""

    finding: Finding
    statement: int


class _File:
    def __init__(self, source: Source, schema: str, history: History, asked: Asked | None) -> None:
        self._path = source.path
        self._problem = source.problem
        self._schema = schema
        self._seen = Seen(history, asked if source.report else None)
        self._content = ""
        self._name = source.name

    def findings(self) -> list[Finding]:
        tolerated: list[ConfigError] = []
        try:
            if self._problem:
                raise self._problem
            self._content = files.text_of(self._path)
            migration = files.parse(self._content, self._path, self._name, tolerated)
        except ConfigError as error:
            return [self._unreadable(error)]
        # What the reader tolerated and no rule of its own is about.
        found = [self._unreadable(error) for error in tolerated if error.code != "transaction-control"]
        listed = [(piece, statement) for piece in migration.pieces for statement in piece.statements]
        hits: list[_Hit] = []
        entered: Piece | None = None
        for number, (piece, statement) in enumerate(listed):
            if piece is not entered:
                self._seen.piece(outside=piece.outside_transaction, repeat=piece.repeat)
                entered = piece
            hits += [_Hit(finding, number) for finding in self._statement(statement)]
        found += self._heard(hits, [statement for _, statement in listed])
        return sorted(found, key=lambda f: (f.line, f.column, _SEVERITIES[f.severity]))

    def _statement(self, statement: Statement) -> Iterator[Finding]:
        seen = self._seen
        if seen.asked and (problem := seen.asked.syntax_error(statement.sql)):
            yield self._finding(text.SYNTAX, statement, problem.at, problem.message, "")
            return
        read = statements.read(statement.sql, self._schema)
        facts: list[Fact] = list(read.facts)
        if not any(isinstance(fact, EnumValueAdded) for fact in facts):
            facts += [
                EnumValueUsed(type_, value, text=statement.sql)
                for value, (type_, transaction) in seen.enum_values.items()
                if transaction == seen.transaction and value in read.strings
            ]
        for fact in facts:
            for rule in RULES.values():
                if rule.fact is type(fact) and rule.check is not None:
                    yield from self._judged(rule, rule.check(fact, seen), fact, statement)
            seen.learn(fact)

    def _judged(self, rule: Rule, found: Any, fact: Fact, statement: Statement) -> Iterator[Finding]:
        if found is None:
            return
        finding = self._finding(rule, statement, fact.at, found.what, found.safe)
        size = self._seen.asked.size(found.table) if self._seen.asked and rule.by_size and found.table else None
        if size is not None:
            finding = replace(finding, what=f"{finding.what} ({size.described})")
            if size.tiny:
                finding = replace(finding, severity="advice")
        yield finding

    def _heard(self, hits: Sequence[_Hit], listed: Sequence[Statement]) -> list[Finding]:
        """What the comments in the file leave of the findings, and what is wrong with the comments."""
        spans = [(start := self._offset(s), start + len(s.sql)) for s in listed]
        comments = allows(self._content, spans)
        kept = [
            hit.finding
            for hit in hits
            if not any(
                comment.rule == hit.finding.rule and self._covers(comment.statement, hit) for comment in comments
            )
        ]
        found = list(_once_a_file(kept))
        for comment in comments:
            line, column = self._place(comment.at)
            if comment.rule not in RULES and comment.rule not in ALLOWABLE:
                near = difflib.get_close_matches(comment.rule, RULES, n=1, cutoff=0.4)
                what = f"there is no rule {comment.rule}" if comment.rule else "no rule is named"
                safe = f"-- stackctl:allow {near[0]} {comment.reason or '…'}" if near else ""
                found.append(self._made(text.NO_RULE, line, column, what, safe))
                continue
            if not comment.reason:
                safe = f"-- stackctl:allow {comment.rule} why it is safe here"
                found.append(self._made(text.NO_REASON, line, column, f"stackctl:allow {comment.rule}", safe))
            used = any(hit.finding.rule == comment.rule and self._covers(comment.statement, hit) for hit in hits)
            if comment.rule not in RULES:
                continue  # `migrate check` alone hears it
            # A database that was asked may have settled the finding that the comment is there for.
            if not used and self._seen.asked is None:
                found.append(self._made(text.UNUSED, line, column, f"stackctl:allow {comment.rule}", ""))
        return found

    @staticmethod
    def _covers(statement: int | None, hit: _Hit) -> bool:
        """Advice is given once a file, so a comment about it holds for the file."""
        return RULES[hit.finding.rule].severity == "advice" or statement == hit.statement

    def _finding(self, rule: Rule, statement: Statement, at: int, what: str, safe: str) -> Finding:
        return self._made(rule, *self._place(self._offset(statement) + at), what, safe)

    def _made(self, rule: Rule, line: int, column: int, what: str, safe: str) -> Finding:
        return Finding(self._path, line, column, rule.id, rule.severity, what, rule.why, safe)

    def _unreadable(self, error: ConfigError) -> Finding:
        line, column = error.details.get("line", 1), error.details.get("column", 1)
        what = error.message.removeprefix(f"{self._path}:").removeprefix(f"{line}:").strip()
        hint = f"-- {error.hint}" if error.hint else ""
        return self._made(text.UNREADABLE, line, column, what, hint)

    def _offset(self, statement: Statement) -> int:
        before = 0
        for _ in range(statement.line - 1):
            before = self._content.index("\n", before) + 1
        return before + statement.column - 1

    def _place(self, at: int) -> tuple[int, int]:
        return self._content.count("\n", 0, at) + 1, at - (self._content.rfind("\n", 0, at) + 1) + 1


def _once_a_file(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Rules of advice speak once, and say how often they would have."""
    listed = list(findings)
    said: set[str] = set()
    for finding in listed:
        if RULES[finding.rule].severity != "advice":
            yield finding
        elif finding.rule not in said:
            said.add(finding.rule)
            more = sum(other.rule == finding.rule for other in listed) - 1
            yield replace(finding, what=f"{finding.what} (and {more} more in this file)") if more else finding

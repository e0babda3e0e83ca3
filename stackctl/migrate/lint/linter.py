"""Files → findings."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stackctl.core.errors import ConfigError
from stackctl.migrate import files
from stackctl.migrate.allow_comments import CHECK_ALONE, parse_allow_comments
from stackctl.migrate.lint.findings import LintFinding
from stackctl.migrate.lint.registry import RULES, LintRule, RuleMatch
from stackctl.migrate.lint.rules import (
    columns,
    constraints,
    definitions,
    drops,
    indexes,
    partitions,
    renames,
    rights,
    rows,
    tables,
    text,
    transactions,
    types,
)
from stackctl.migrate.lint.schema_state import FileState, SchemaState
from stackctl.migrate.parser import statements
from stackctl.migrate.parser.facts import EnumValueAdded, EnumValueUsed, Fact, StatementFacts
from stackctl.migrate.parser.repeat_answer import find_unclear_answer
from stackctl.migrate.source_text import read_text
from stackctl.postgres.lexer import LineIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from stackctl.migrate.files import Piece, Statement
    from stackctl.migrate.lint.database_facts import DatabaseFacts

# Importing them registers their rules, in the order of the alphabet.
FAMILIES = (
    columns, constraints, definitions, drops, indexes, partitions, renames, rights, rows, tables, text, transactions,
    types,
)  # fmt: skip
_DEFINES = re.compile(r"\s*(?:CREATE|ALTER|DROP|DO)\b", re.IGNORECASE)
_SEVERITIES = {"error": 0, "warning": 1, "advice": 2}
_STEP = 1000  # statements between two words about progress


@dataclass(frozen=True)
class LintFile:
    """A migration to lint; unless `report`, it is read only for what it tells about the files after it.

    `problem`: why it, or the whole folder that `path` is then, can't be read.
    """

    path: Path
    name: str
    report: bool = True
    problem: ConfigError | None = None


def lint_files(
    files_to_lint: Iterable[LintFile],
    *,
    schema: str,
    database: DatabaseFacts | None = None,
    server_version: int | None = None,
    rules: Mapping[str, LintRule] = RULES,
    advance: Callable[[int, str], None] = lambda count, name: None,
) -> list[LintFinding]:
    """The findings in one folder's files, which are in order. Nothing is executed.

    `schema` is the one that names without a schema stand for. `database` answers what only a database can tell.
    `server_version` is the major one that the files are for; without it, hazards are those of the newest. `rules` are
    those to ask, by their ids. `advance` hears of each number of statements that were read, of which file.
    """
    schema_state = SchemaState(server_version)
    findings: list[LintFinding] = []
    asked, none = _AskedRules(rules), _AskedRules({})
    for file in files_to_lint:
        state = FileState(schema_state, database if file.report else None)
        findings += _FileLinter(file, schema, state, asked if file.report else none).lint(advance)
    return findings


@dataclass(frozen=True)
class _NumberedFinding:
    """A finding with the number of its statement, before the comments count."""

    finding: LintFinding
    statement: int


class _AskedRules:
    """By their ids, and by the facts that they are about."""

    def __init__(self, rules: Mapping[str, LintRule]) -> None:
        self.by_id = rules
        self.by_fact: dict[type[Fact], list[LintRule]] = {}
        for rule in rules.values():
            for kind in rule.facts:
                self.by_fact.setdefault(kind, []).append(rule)


class _FileLinter:
    def __init__(self, file: LintFile, schema: str, state: FileState, asked: _AskedRules) -> None:
        self._path = file.path
        self._problem = file.problem
        self._schema = schema
        self._state = state
        self._rules, self._by_fact = asked.by_id, asked.by_fact
        self._read_already: dict[Statement, StatementFacts] = {}
        self._content = ""
        self._lines = LineIndex("")
        self._name = file.name

    def lint(self, advance: Callable[[int, str], None]) -> list[LintFinding]:
        tolerated: list[ConfigError] = []
        try:
            if self._problem:
                raise self._problem
            self._content = read_text(self._path)
            self._lines = LineIndex(self._content)
            migration = files.parse_migration(self._content, self._path, self._name, tolerated)
            files.refuse_empty(migration)
        except ConfigError as error:
            return self._sort([self._to_unreadable(error)])
        # What the reader tolerated and no rule of its own is about.
        found = [self._to_unreadable(error) for error in tolerated if error.code != "transaction-control"]
        listed = [(piece, statement) for piece in migration.pieces for statement in piece.statements]
        self._state.read_file = lambda: self._read_ahead(statement for _, statement in listed)
        hits: list[_NumberedFinding] = []
        entered: Piece | None = None
        for number, (piece, statement) in enumerate(listed):
            if piece is not entered:
                self._state.begin_piece(outside=piece.outside_transaction, repeat=piece.repeat)
                entered = piece
            hits += [_NumberedFinding(finding, number) for finding in self._lint_statement(statement)]
            if number % _STEP == _STEP - 1:
                advance(_STEP, self._path.name)
            if piece.repeat and (unclear := find_unclear_answer(statement.sql)):
                safe = "-- name the column, a boolean:\n… SELECT count(*) > 0 AS should_repeat_migration FROM …"
                hits.append(_NumberedFinding(self._make_finding(text.REPEAT_ANSWER, statement, *unclear, safe), number))
        advance(len(listed) % _STEP, self._path.name)
        found += self._apply_comments(hits, [statement for _, statement in listed])
        return self._sort(found)

    def _sort(self, found: Iterable[LintFinding]) -> list[LintFinding]:
        """What the rules that are asked have found, in the order of the file."""
        asked = (finding for finding in found if finding.rule in self._rules)
        return sorted(asked, key=lambda f: (f.line, f.column, _SEVERITIES[f.severity]))

    def _lint_statement(self, statement: Statement) -> Iterator[LintFinding]:
        state = self._state
        if state.database and (problem := state.database.find_syntax_error(statement.sql)):
            yield self._make_finding(text.SYNTAX, statement, problem.at, problem.message, "")
            return
        read = self._read(statement)
        facts: list[Fact] = list(read.facts)
        if not any(isinstance(fact, EnumValueAdded) for fact in facts):
            facts += [
                EnumValueUsed(type_, value, text=statement.sql)
                for value, (type_, transaction) in state.enum_values.items()
                if transaction == state.transaction and value in read.strings
            ]
        for fact in facts:
            for rule in self._by_fact.get(type(fact), ()):
                if rule.check is not None and (match := rule.check(fact, state)) is not None:
                    yield self._to_finding(rule, match, fact, statement)
            state.apply_fact(fact)

    def _read_ahead(self, listed: Iterable[Statement]) -> Iterator[Fact]:
        """The facts of the file's definitions."""
        for statement in listed:
            if _DEFINES.match(statement.sql):
                yield from self._read(statement).facts

    def _read(self, statement: Statement) -> StatementFacts:
        """What it does; definitions, which are asked for again, are parsed once."""
        if not _DEFINES.match(statement.sql):
            return statements.parse_statement(statement.sql, self._schema)
        if (known := self._read_already.get(statement)) is None:
            known = self._read_already[statement] = statements.parse_statement(statement.sql, self._schema)
        return known

    def _to_finding(self, rule: LintRule, match: RuleMatch, fact: Fact, statement: Statement) -> LintFinding:
        finding = self._make_finding(rule, statement, fact.at, match.what, match.safe)
        size = (
            self._state.database.read_size(match.table)
            if self._state.database and rule.by_size and match.table
            else None
        )
        if size is not None:
            finding = replace(finding, what=f"{finding.what} ({size.described})")
            if size.tiny:
                finding = replace(finding, severity="advice")
        return finding

    def _apply_comments(self, hits: Sequence[_NumberedFinding], listed: Sequence[Statement]) -> list[LintFinding]:
        """What the comments in the file leave of the findings, and what is wrong with the comments."""
        spans = [(start := self._find_offset(s), start + len(s.sql)) for s in listed]
        comments = parse_allow_comments(self._content, spans)
        allowed = {self._find_reach(comment.rule, comment.statement) for comment in comments}
        hit_by = {self._find_reach(hit.finding.rule, hit.statement) for hit in hits}
        found = list(
            self._merge_advice(
                [hit.finding for hit in hits if self._find_reach(hit.finding.rule, hit.statement) not in allowed]
            )
        )
        for comment in comments:
            line, column = self._find_place(comment.at)
            if comment.rule not in RULES and comment.rule not in CHECK_ALONE:
                near = difflib.get_close_matches(comment.rule, RULES, n=1, cutoff=0.4)
                what = f"there is no rule {comment.rule}" if comment.rule else "no rule is named"
                safe = f"-- stackctl:allow {near[0]} {comment.reason or '…'}" if near else ""
                found.append(self._make_finding_at(text.NO_RULE, line, column, what, safe))
                continue
            if not comment.reason:
                safe = f"-- stackctl:allow {comment.rule} why it is safe here"
                found.append(
                    self._make_finding_at(text.NO_REASON, line, column, f"stackctl:allow {comment.rule}", safe)
                )
            if comment.rule not in self._rules:
                continue  # it is not asked now, or `migrate check` alone hears it
            # A database that was asked may have settled the finding that the comment is there for.
            used = self._find_reach(comment.rule, comment.statement) in hit_by
            if not used and self._state.database is None:
                found.append(self._make_finding_at(text.UNUSED, line, column, f"stackctl:allow {comment.rule}", ""))
        return found

    def _find_reach(self, rule: str, statement: int | None) -> tuple[str, int | None]:
        """What a comment about the rule holds for, and where a finding is looked for: advice is given once a file."""
        return rule, None if rule in self._rules and self._rules[rule].severity == "advice" else statement

    def _merge_advice(self, findings: Sequence[LintFinding]) -> Iterator[LintFinding]:
        """Rules of advice speak once, and say how often they would have."""
        counts = Counter(finding.rule for finding in findings)
        said: set[str] = set()
        for finding in findings:
            if self._find_reach(finding.rule, 0)[1] == 0:
                yield finding
            elif finding.rule not in said:
                said.add(finding.rule)
                more = counts[finding.rule] - 1
                yield replace(finding, what=f"{finding.what} (and {more} more in this file)") if more else finding

    def _make_finding(self, rule: LintRule, statement: Statement, at: int, what: str, safe: str) -> LintFinding:
        return self._make_finding_at(rule, *self._find_place(self._find_offset(statement) + at), what, safe)

    def _make_finding_at(self, rule: LintRule, line: int, column: int, what: str, safe: str) -> LintFinding:
        severity = self._rules.get(rule.id, rule).severity
        return LintFinding(self._path, line, column, rule.id, severity, what, rule.why, safe)

    def _to_unreadable(self, error: ConfigError) -> LintFinding:
        line, column = error.details.get("line", 1), error.details.get("column", 1)
        what = error.message.removeprefix(f"{self._path}:").removeprefix(f"{line}:").strip()
        hint = f"-- {error.hint}" if error.hint else ""
        return self._make_finding_at(text.UNREADABLE, line, column, what, hint)

    def _find_offset(self, statement: Statement) -> int:
        return self._lines.find_offset(statement.line, statement.column)

    def _find_place(self, at: int) -> tuple[int, int]:
        return self._lines.find_place(at)

"""Where in a file a finding belongs, and which findings a comment there lets pass."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stackctl.migrate.allow_comments import parse_allow_comments
from stackctl.migrate.compatibility.contract_rules import ALLOWABLE
from stackctl.migrate.source_text import read_text
from stackctl.postgres import lexer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from stackctl.migrate.compatibility.report import CompatibilityFinding
    from stackctl.migrate.files import Migration

_DEFINES = ("alter", "create", "drop", "grant", "revoke")


def find_statement(
    migration: Migration, names: Sequence[str], likely: Collection[int] = frozenset()
) -> tuple[int, int]:
    """The statement that names the most of what was changed, rather DDL than not, and of several rather one with a
    `likely` number; the file's first when none does.
    """
    statements = [statement for piece in migration.pieces for statement in piece.statements]
    if not statements:
        return 1, 1

    def weight(number: int) -> int:
        sql = statements[number].sql
        said = [_fold_identifier(token) for token in lexer.tokenize(sql) if token.kind in ("word", "quoted")]
        named = sum(4 if name in said else 2 if name in sql else 0 for name in names)
        return named + (named > 0 and said[0] in _DEFINES) + 8 * (named > 0 and number in likely)

    best = statements[max(range(len(statements)), key=weight)]
    return best.line, best.column


def _fold_identifier(token: lexer.Token) -> str:
    if token.kind == "word":
        return token.text.lower()
    return token.text[1:-1].replace('""', '"')


def drop_allowed(
    findings: Iterable[CompatibilityFinding], migrations: Iterable[Migration]
) -> Iterable[CompatibilityFinding]:
    """Without those that a comment `-- stackctl:allow RULE reason` at their statement lets pass."""
    allowed = {(m.path, line, rule) for m in migrations for line, rule in _find_allowed_rules(m)}
    return [f for f in findings if f.rule not in ALLOWABLE or (f.file, f.line, f.rule) not in allowed]


def _find_allowed_rules(migration: Migration) -> Iterable[tuple[int, str]]:
    """The lines of statements, and the rules that a comment lets them break."""
    text = read_text(migration.path)
    lines = [0, *(match.end() for match in re.finditer("\n", text))]
    statements = [statement for piece in migration.pieces for statement in piece.statements]
    starts = [lines[statement.line - 1] + statement.column - 1 for statement in statements]
    spans = [(start, start + len(statement.sql)) for start, statement in zip(starts, statements, strict=True)]
    for allow in parse_allow_comments(text, spans):
        if allow.statement is not None:
            yield statements[allow.statement].line, allow.rule

"""Statements that reach beyond the server they are tried on, and what is run there in their place."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from stackctl.postgres import lexer

if TYPE_CHECKING:
    from stackctl.migrate.files import Migration

_NAME = r'(?:"[^"]+"|\w+)'
_NAMES = rf"{_NAME}(?:\s*,\s*{_NAME})*"
_WITH = r"(?:\s+WITH\s*\([^()]*\))?"


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE)


_TABLESPACE = _compile(rf"(CREATE TABLESPACE {_NAME}(?: OWNER {_NAME})? LOCATION )'[^']*'({_WITH})")
_SUBSCRIPTION = _compile(rf"(CREATE SUBSCRIPTION {_NAME} CONNECTION )'[^']*'( PUBLICATION {_NAMES}){_WITH}")
_PUBLICATION = _compile(
    rf"(CREATE PUBLICATION {_NAME}) FOR (?:ALL TABLES|TABLES IN SCHEMA {_NAMES})({_WITH})",
)


def substitute_statements(migration: Migration, *, trust: bool) -> Migration:
    """The migration as it can be tried.

    A tablespace lies in the server's own directory, and a subscription connects nowhere. Only a superuser may publish
    whatever there will be; without `trust` such a publication is made empty.
    """

    def substitute(text: str) -> str:
        if found := _TABLESPACE.fullmatch(text):
            return f"{found[1]}''{found[2]}"
        if found := _SUBSCRIPTION.fullmatch(text):
            return f"{found[1]}'dbname=nowhere'{found[2]} WITH (connect = false, slot_name = NONE)"
        if not trust and (found := _PUBLICATION.fullmatch(text)):
            return f"{found[1]}{found[2]}"
        return text

    return replace(
        migration,
        pieces=tuple(
            replace(piece, statements=tuple(replace(one, sql=substitute(one.sql)) for one in piece.statements))
            for piece in migration.pieces
        ),
    )


def find_new_owner(text: str) -> str | None:
    """The role that a statement gives something to: ALTER TABLE … OWNER TO role."""
    tokens = [token for token in lexer.tokenize(text) if token.kind != "comment"]
    said = lexer.first_words(tokens, len(tokens))
    for first, second, token in zip(said[1:], said[2:], tokens[3:], strict=False):
        if said[0] == "ALTER" and (first, second) == ("OWNER", "TO"):
            return token.text[1:-1].replace('""', '"') if token.kind == "quoted" else token.text.lower()
    return None


def makes_tablespace(text: str) -> bool:
    """Whether that, and nothing else, is what a statement does."""
    return _TABLESPACE.fullmatch(text) is not None

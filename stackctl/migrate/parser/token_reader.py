"""Reading PostgreSQL's DDL token by token: keywords, names, and what stands in brackets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from stackctl.migrate import files
from stackctl.postgres import lexer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stackctl.postgres.lexer import Token

_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")
_RESERVED = frozenset(
    ("ALL", "AND", "ANY", "ARRAY", "AS", "ASC", "CASE", "CAST", "CHECK", "COLLATE", "COLUMN", "CONSTRAINT", "CREATE",
     "DEFAULT", "DESC", "DISTINCT", "DO", "ELSE", "END", "EXCEPT", "FALSE", "FETCH", "FOR", "FOREIGN", "FROM", "GRANT",
     "GROUP", "HAVING", "IN", "INTO", "LIMIT", "NOT", "NULL", "OFFSET", "ON", "ONLY", "OR", "ORDER", "PRIMARY",
     "REFERENCES", "RETURNING", "SELECT", "TABLE", "THEN", "TO", "TRUE", "UNION", "UNIQUE", "USER", "USING", "WHEN",
     "WHERE", "WINDOW", "WITH")
)  # fmt: skip
_OPEN, _CLOSE = frozenset("(["), frozenset(")]")


class NotUnderstood(ValueError):
    """The statement is not one that is known here. `at`: the offset of the first token that did not fit."""

    def __init__(self, what: str, at: int) -> None:
        super().__init__(what)
        self.what = what
        self.at = at


def quote_identifier(name: str) -> str:
    """The name as SQL, in quotes where it needs them."""
    if _PLAIN.fullmatch(name) and name.upper() not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class QualifiedName:
    """An object's name, as PostgreSQL compares it: an unquoted one in lower case, one without a schema in the default
    one. `shown` is how the statement writes it; it takes no part in comparisons.
    """

    schema: str
    name: str
    shown: str = field(compare=False)

    def __str__(self) -> str:
        return self.shown

    def sibling(self, name: str) -> QualifiedName:
        """Something else in the same schema, or a part of this."""
        return QualifiedName(self.schema, name, quote_identifier(name))


class TokenReader:
    """A position in a list of tokens; comments have been left out, but for the sentinel of the schema's name."""

    def __init__(self, tokens: Sequence[Token], schema: str, end: int = 0) -> None:
        self._tokens = tokens
        self._at = 0
        self._schema = schema
        self._end = tokens[-1].end if tokens else end

    @property
    def done(self) -> bool:
        return self._at >= len(self._tokens)

    @property
    def offset(self) -> int:
        """Where the next token begins."""
        return self._end if self.done else self._tokens[self._at].start

    @property
    def rest(self) -> Sequence[Token]:
        return self._tokens[self._at :]

    def fork(self, tokens: Sequence[Token]) -> TokenReader:
        """A reader of some of these tokens."""
        return TokenReader(tokens, self._schema, self.offset)

    def peek_word(self, ahead: int = 0) -> str:
        """The keyword there, in upper case; empty for anything else. Quoted names are no keywords."""
        at = self._at + ahead
        if at >= len(self._tokens) or self._tokens[at].kind != "word":
            return ""
        return self._tokens[at].text.upper()

    def peek_text(self, ahead: int = 0) -> str:
        """The token there as written; empty behind the end."""
        at = self._at + ahead
        return self._tokens[at].text if at < len(self._tokens) else ""

    def accept_symbol(self, text: str) -> bool:
        """Step over this symbol, if it is next."""
        if not self.done and self._tokens[self._at].kind == "other" and self._tokens[self._at].text == text:
            self._at += 1
            return True
        return False

    def accept(self, *words: str) -> bool:
        """Step over these keywords, if all of them are next."""
        for ahead, word in enumerate(words):
            if self.peek_word(ahead) != word:
                return False
        self._at += len(words)
        return True

    def accept_one_of(self, *words: str) -> str:
        """Step over one of these keywords, which may be several words each; the one that was there, or empty."""
        for one, parts in _sort_by_first_word(words).get(self.peek_word(), ()):
            if self.accept(*parts):
                return one
        return ""

    def expect(self, *words: str) -> None:
        if not self.accept(*words):
            raise self.make_error(f"expected {' '.join(words)}")

    def make_error(self, what: str) -> NotUnderstood:
        if not self.done:
            what = f"{what} at {self._tokens[self._at].text[:40]!r}"
        return NotUnderstood(what, self.offset)

    def take(self) -> Token:
        if self.done:
            raise self.make_error("the statement ends early")
        self._at += 1
        return self._tokens[self._at - 1]

    def take_rest(self) -> Sequence[Token]:
        """Step over everything that is left."""
        rest = self.rest
        self._at = len(self._tokens)
        return rest

    def expect_end(self) -> None:
        """Nothing may be left. Raises NotUnderstood."""
        if not self.done:
            raise self.make_error("unexpected text")

    def read_identifier(self) -> str:
        """One name, folded as PostgreSQL does. Raises NotUnderstood."""
        return fold_identifier(self._take_name())

    def read_name(self) -> QualifiedName:
        """A name that may have a schema in front (and a database before that). Raises NotUnderstood."""
        parts = [self._take_name()]
        while self.accept_symbol("."):
            parts.append(self._take_name())
        shown = ".".join(self._show_part(part) for part in parts)
        schema = self._schema
        if len(parts) > 1 and parts[-2].text != files.SCHEMA_SENTINEL:
            schema = fold_identifier(parts[-2])
        return QualifiedName(schema, fold_identifier(parts[-1]), shown)

    def read_string(self) -> str:
        """A string literal, as written with its quotes taken off. Raises NotUnderstood."""
        token = self.take()
        if token.kind != "quoted" or not token.text.endswith("'"):
            self._at -= 1
            raise self.make_error("expected a string")
        return unquote_string(token)

    def read_brackets(self) -> Sequence[Token]:
        """The tokens between the brackets that open next. Raises NotUnderstood."""
        if self.peek_text() != "(":
            raise self.make_error("expected (")
        start, depth = self._at + 1, 0
        while not self.done:
            text = self.take().text
            depth += (text in _OPEN) - (text in _CLOSE)
            if depth == 0:
                return self._tokens[start : self._at - 1]
        raise self.make_error("a bracket is not closed")

    def _take_name(self) -> Token:
        token = self.take()
        is_name = token.kind == "word" or token.text.endswith('"') or token.text == files.SCHEMA_SENTINEL
        if not is_name:
            self._at -= 1
            raise self.make_error("expected a name")
        return token

    def _show_part(self, token: Token) -> str:
        return token.text if token.text != files.SCHEMA_SENTINEL else f'"{self._schema}"'


@lru_cache
def _sort_by_first_word(choices: tuple[str, ...]) -> dict[str, list[tuple[str, list[str]]]]:
    found: dict[str, list[tuple[str, list[str]]]] = {}
    for one in choices:
        found.setdefault(one.partition(" ")[0], []).append((one, one.split()))
    return found


def tokenize(text: str) -> list[Token]:
    """The tokens that count: without comments, but with the sentinel of the schema's name."""
    return [token for token in lexer.tokenize(text) if token.kind != "comment" or token.text == files.SCHEMA_SENTINEL]


def fold_identifier(token: Token) -> str:
    text = token.text
    return text[text.index('"') + 1 : -1].replace('""', '"') if text.endswith('"') else text.lower()


def unquote_string(token: Token) -> str:
    """The content of a quoted string. Escapes other than a doubled quote stay as they are."""
    text = token.text
    if text.startswith("$"):
        tag = text[: text.index("$", 1) + 1]
        return text[len(tag) : -len(tag)]
    return text[text.index("'") + 1 : -1].replace("''", "'")


def split_tokens(tokens: Iterable[Token], at: str = ",") -> list[list[Token]]:
    """Part tokens at a symbol outside all brackets."""
    parts: list[list[Token]] = [[]]
    for token, depth in iter_with_depth(tokens):
        if depth == 0 and token.kind == "other" and token.text == at:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def iter_with_depth(tokens: Iterable[Token]) -> Iterator[tuple[Token, int]]:
    """Each token with the number of brackets (and CASE … END) around it; a bracket itself counts as inside."""
    depth = 0
    for token in tokens:
        upper = token.text.upper() if token.kind == "word" else token.text if token.kind == "other" else ""
        depth += upper in _OPEN or upper == "CASE"
        yield token, depth
        depth -= (upper in _CLOSE or upper == "END") and depth > 0


def join_tokens(tokens: Sequence[Token]) -> str:
    """The tokens as written, with one space for whatever stood between them."""
    text = ""
    for previous, token in zip((None, *tokens), tokens, strict=False):
        text += " " * (previous is not None and token.start > previous.end) + token.text
    return text

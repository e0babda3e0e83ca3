"""Migration files: the text of each becomes pieces and statements. Nothing here knows a database."""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.core.errors import ConfigError
from stackctl.migrate import up_halves
from stackctl.postgres import lexer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

SCHEMA_SENTINEL = "/* SCHEMA_NAME_SENTINEL */"


# The backend's words count wherever a comment holds them, as they do in its own runner.
_BACKEND_SPLIT = "SPLIT_STATEMENT_SENTINEL"
_BACKEND_SINGLE = "SINGLE_STATEMENT_SENTINEL"
_BACKEND_OUTSIDE = "RUN_OUTSIDE_TRANSACTION_SENTINEL"
_BACKEND_REPEAT = "CONDITIONALLY_REPEAT_MIGRATION_SENTINEL"

# stackctl's own fill a whole line comment, so that prose may mention them.
_DIRECTIVE = re.compile(r"--\s*stackctl:(\S+)\s*(.*)")
_SPLIT = "split"
_OUTSIDE = "outside-transaction"
_REPEAT = "repeat"
_ALLOW = "allow"  # read by the linter alone
_CAPTURE = "change-capture"
DRAFT = "-- stackctl:draft"  # nothing of the file runs as long as it stands there
BASELINE = "-- stackctl:baseline"  # followed by a name: that of a file which this one takes the place of
_HARMLESS_PSQL = ("\\restrict", "\\unrestrict")  # what pg_dump writes against commands in the data
_DRAFT, _BASELINE = (line.removeprefix("-- stackctl:") for line in (DRAFT, BASELINE))
_WITH_WORDS = (_ALLOW, _BASELINE)
_DIRECTIVES = (_SPLIT, _OUTSIDE, _REPEAT, _ALLOW, _CAPTURE, _DRAFT, _BASELINE)


@dataclass(frozen=True)
class Statement:
    """One SQL statement, from its first token to its last, and where it begins in the file (both from 1)."""

    sql: str
    line: int
    column: int


@dataclass(frozen=True)
class Piece:
    """A part of a file between two split directives.

    `outside_transaction`: it runs in autocommit, after what came before it was committed; such a piece holds exactly
    one statement. `single`: it is declared to hold one statement. `repeat`: while its row says
    `should_repeat_migration`, the file is committed so far and runs again.
    """

    sql: str
    line: int
    outside_transaction: bool
    single: bool
    repeat: bool
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class Migration:
    """One migration. `name` is the file's name without `.sql`, or the folder's: what the history is keyed by.

    `captures_changes`: it makes the database mark changes, and is left out where the application does that. `tool`: in
    whose format it is written, empty for ours. `content_sha256`: of the bytes that were read, of a folder's file. A
    file that has just been made has no pieces.
    """

    version: str
    name: str
    path: Path
    pieces: tuple[Piece, ...]
    checksum: str
    captures_changes: bool = False
    tool: str = ""
    draft: bool = False
    stands_for: tuple[str, ...] = ()
    content_sha256: str = ""


def parse_migration(text: str, path: Path, name: str, tolerated: list[ConfigError] | None = None) -> Migration:
    """The migration that a file's text holds.

    Raises ConfigError; but statements that may not stand in a migration are added to `tolerated`, if it is given.
    """
    parser = _Parser(path, text, tolerated)
    pieces = parser.read_pieces()
    return Migration(
        name.partition("_")[0],
        name,
        path,
        pieces,
        compute_checksum(pieces),
        captures_changes=parser.captures_changes,
        draft=parser.draft,
        stands_for=tuple(parser.stands_for),
        tool=parser.tool or (up_halves.PAIRS if path.stem.endswith(up_halves.UP) else ""),
    )


def refuse_empty(migration: Migration) -> None:
    """A file of ours without a statement is not written yet; another tool's may have nothing to do on the way up.

    Raises ConfigError (`empty-migration`).
    """
    if not migration.pieces and not migration.tool:
        what, hint = "the file holds no SQL statement", "write it, or remove it"
        if migration.draft:
            what, hint = "the file is a draft", f"read it, complete it, and take out its line {DRAFT}; or remove it"
        raise ConfigError(
            f"{migration.path}:1: {what}",
            code="empty-migration",
            hint=hint,
            details={"file": str(migration.path), "line": 1, "column": 1},
        )


def compute_checksum(pieces: Iterable[Piece]) -> str:
    """sha256 over what the pieces do: blind to comments, line endings and the space between tokens."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(f"\x1d{piece.outside_transaction:d}{piece.repeat:d}".encode())
        for statement in piece.statements:
            digest.update("\x1f".join(("\x1e", *_list_token_texts(statement.sql))).encode())
    return digest.hexdigest()


def _list_token_texts(sql: str) -> list[str]:
    if "--" not in sql and "/*" not in sql:
        return lexer.list_token_texts(sql)
    tokens = lexer.tokenize(sql)
    return [token.text for token in tokens if token.kind != "comment" or token.text == SCHEMA_SENTINEL]


class _Parser:
    def __init__(self, path: Path, text: str, tolerated: list[ConfigError] | None) -> None:
        self._path = path
        self._text = text
        self._lines = lexer.LineIndex(text)
        self._tolerated = tolerated
        self.captures_changes = False
        self.draft = False
        self.stands_for: list[str] = []
        self.tool = ""

    def read_pieces(self) -> tuple[Piece, ...]:
        pieces: list[Piece] = []
        if (nul := self._text.find("\0")) >= 0:
            # The server would take what comes before it for the whole.
            raise self._make_error("a NUL byte", nul, hint="save the file as UTF-8, without it")
        try:
            tokens = self._tokenize()
        except lexer.Unclosed as unclosed:
            raise self._make_error(f"this {unclosed.what} is never closed", unclosed.start) from unclosed
        half = up_halves.take_up_half(self._text, tokens, self._make_ambiguous)
        self.tool = half.tool
        self._read_whole_file_directives(half.tokens)
        if self.draft:
            return ()
        for part in self._split(half.tokens):
            pieces.extend(self._read_piece(part, outside=half.outside_transaction))
        return tuple(pieces)

    def _read_whole_file_directives(self, tokens: Sequence[lexer.Token]) -> None:
        for token in tokens:
            if token.kind == "comment" and "stackctl:" in token.text:
                name = self._parse_directive(token)
                self.draft |= name == _DRAFT
                if name == _BASELINE:
                    if not (stood_for := token.text.partition(_BASELINE)[2].strip()):
                        raise self._make_error(f"{BASELINE} names no file", token.start)
                    self.stands_for.append(stood_for)

    def _tokenize(self) -> list[lexer.Token]:
        """The tokens, without lines for psql, which are blanked out."""
        found: list[lexer.Token] = []
        kept: list[str] = []
        end = 0
        for token in lexer.tokenize(self._text, script=True):
            if token.kind != "psql":
                found.append(token)
                continue
            self._refuse_psql(token)
            kept += [self._text[end : token.start], " " * len(token.text)]
            end = token.end
        self._text = "".join([*kept, self._text[end:]])
        return found

    def _refuse_psql(self, token: lexer.Token) -> None:
        """Some lines for psql change nothing."""
        command = token.text.split()[0]
        if command not in _HARMLESS_PSQL:
            self._refuse(
                f"{command} is a command of psql, which the server does not know",
                token.start,
                code="psql-command",
                hint="leave it out; a dump without such lines is written by stackctl migrate dump",
            )

    def _split(self, tokens: Sequence[lexer.Token]) -> list[list[lexer.Token]]:
        parts: list[list[lexer.Token]] = [[]]
        for token in tokens:
            if token.kind == "comment" and (_BACKEND_SPLIT in token.text or self._parse_directive(token) == _SPLIT):
                parts.append([])
            else:
                parts[-1].append(token)
        return parts

    def _make_ambiguous(self, what: str, at: int) -> ConfigError:
        hint = "leave the way down out, or write one file for each way: NAME.up.sql and NAME.down.sql"
        return self._make_error(what, at, code="ambiguous-halves", hint=hint)

    def _read_piece(self, part: Sequence[lexer.Token], *, outside: bool) -> list[Piece]:
        comments = [token for token in part if token.kind == "comment" and token.text != SCHEMA_SENTINEL]
        own = {name: token for token in comments if (name := self._parse_directive(token))}
        said = " ".join(token.text for token in comments)
        self.captures_changes |= _CAPTURE in own
        outside = outside or _OUTSIDE in own or _BACKEND_OUTSIDE in said
        repeat = _REPEAT in own or _BACKEND_REPEAT in said
        single = repeat or _BACKEND_SINGLE in said

        sql_tokens = [token for token in part if token.kind != "comment" or token.text == SCHEMA_SENTINEL]
        spans = list(lexer.split_statements(sql_tokens))
        if not spans:
            for name in (_OUTSIDE, _REPEAT):
                if name in own:
                    raise self._make_error(f"stackctl:{name} stands before no statement", own[name].start)
            return []
        for span in spans:
            self._refuse_transaction_control(span)
            self._refuse_client_copy(span)
        if single and len(spans) > 1:
            raise self._make_error(
                f"this piece is declared a single statement and holds {len(spans)}",
                spans[1][0].start,
                hint="part them with a line: -- stackctl:split",
            )
        statements = [self._to_statement(span) for span in spans]
        if outside:
            # One piece a statement: several statements in one autocommit string share a transaction, and progress
            # is kept by the piece.
            return [
                Piece(s.sql, s.line, outside_transaction=True, single=True, repeat=repeat, statements=(s,))
                for s in statements
            ]
        text = self._text[spans[0][0].start : spans[-1][-1].end]
        return [Piece(text, statements[0].line, False, single, repeat, tuple(statements))]

    def _to_statement(self, span: Sequence[lexer.Token]) -> Statement:
        start = span[0].start
        line, column = self._find_place(start)
        return Statement(self._text[start : span[-1].end], line, column)

    def _parse_directive(self, token: lexer.Token) -> str | None:
        match = _DIRECTIVE.fullmatch(token.text)
        if match is None:
            return None
        name = match[1]
        if name not in _DIRECTIVES or (match[2] and name not in _WITH_WORDS):
            near = difflib.get_close_matches(name, _DIRECTIVES, n=1)
            raise self._make_error(
                f"stackctl:{name} {match[2]}".rstrip() + " is no directive",
                token.start,
                code="unknown-directive",
                hint=f"Did you mean stackctl:{near[0]}, alone on its line?" if near else None,
            )
        return name

    def _refuse_transaction_control(self, span: Sequence[lexer.Token]) -> None:
        first, second, third = [*lexer.first_words(span, 3), "", "", ""][:3]
        to_savepoint = first == "ROLLBACK" and ("TO" in (second, third))
        if (
            (first in ("BEGIN", "COMMIT", "END", "ROLLBACK", "ABORT") and not to_savepoint)
            or (first == "START" and second == "TRANSACTION")
            or (first == "PREPARE" and second == "TRANSACTION")
        ):
            self._refuse(
                f"{first} in a migration: stackctl commits each file together with its history row",
                span[0].start,
                code="transaction-control",
                hint="remove it; for a statement that can't run in a transaction use -- stackctl:outside-transaction",
            )

    def _refuse_client_copy(self, span: Sequence[lexer.Token]) -> None:
        if lexer.first_words(span, 1) != ["COPY"]:
            return
        said = lexer.first_words(span, len(span))
        if "STDIN" in said or "STDOUT" in said:
            self._refuse(
                "COPY with the client has nothing to read from or write to here",
                span[0].start,
                code="client-copy",
                hint="write the rows as INSERT",
            )

    def _refuse(self, what: str, at: int, *, code: str, hint: str) -> None:
        error = self._make_error(what, at, code=code, hint=hint)
        if self._tolerated is None:
            raise error
        self._tolerated.append(error)

    def _find_place(self, at: int) -> tuple[int, int]:
        return self._lines.find_place(at)

    def _make_error(
        self, what: str, at: int, *, code: str = "invalid-migration", hint: str | None = None
    ) -> ConfigError:
        line, column = self._find_place(at)
        return ConfigError(
            f"{self._path}:{line}: {what}",
            code=code,
            hint=hint,
            details={"file": str(self._path), "line": line, "column": column},
        )

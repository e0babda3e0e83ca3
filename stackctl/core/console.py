"""What stackctl shows: results on stdout, everything else on stderr. The only module (with the CLI's) that prints.

Results are of three kinds, and values come from anybody: a user's name, a file's, an answer of Stripe.

- Documents (`document`, `diff`): what is redirected into a file or pasted: SQL, a rule's condition, YAML, a diff. Off a
  terminal they are bytes, the same that `-o FILE` would hold. On one, what a terminal would obey is shown, not done.
- Sentences (`line`): one line each. Whatever cannot be printed is shown as its escape, so that no value ends the line,
  turns its direction, or reads as a command to a terminal or to a runner of GitHub Actions. What looks like a secret is
  masked, except in a line that is `exact`: part of a document.
- Tables (`table`): each cell like a sentence.

JSON (`json_document`, `json_line`) is masked value by value, parts that are documents (`Exact`) excepted. Errors,
remarks and logs are sentences, of which each secret is masked that was ever read (`redaction.scrub`).
On a terminal sentences are folded between words, and tables set to fit; off one nothing is folded or cut.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

from stackctl.core.documents import mask_values, to_csv, to_json
from stackctl.core.durations import format_age
from stackctl.core.errors import AnswerNo, UsageError
from stackctl.core.redaction import scrub, scrub_values
from stackctl.core.sentences import escape_unprintable, to_encodable, to_sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import Console as RichConsole

    from stackctl.core.errors import StackctlError
    from stackctl.core.filters import Filter
    from stackctl.core.progress import Progress
    from stackctl.core.screen import Screen
    from stackctl.core.tables import Column, Table

_EXPLAIN_THEMSELVES = ("bug", "confirmation-required", "not-confirmed", "write-failed")
_USUAL_WIDTH = 80  # of a terminal that does not say
_BEYOND_ASCII = re.compile(r"[^\x20-\x7e\n]")


def _count_columns(stream: IO[str]) -> int | None:
    """How wide the stream's terminal is; None off one."""
    if not stream.isatty():
        return None
    if not os.environ.get("COLUMNS"):
        with suppress(OSError):
            return os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH
    return shutil.get_terminal_size((_USUAL_WIDTH, 24)).columns


def _fold(text: str, width: int | None, hang: int = 2) -> list[str]:
    """A sentence in the lines that it takes; off a terminal one."""
    if width is None:
        return [text]
    from stackctl.core.folding import fold_sentence

    return fold_sentence(text, width, hang)


_ANSWER = len(" [y/N]: y")


class Console:
    """The two streams of one process, and how much to say on them."""

    def __init__(
        self,
        *,
        json_output: bool = False,
        jq: str | None = None,
        quiet: bool = False,
        no_color: bool = False,
        wide: bool = False,
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
    ) -> None:
        self.json_output = json_output
        self.filter_failed = False  # whether the expression of --jq failed on a document
        self._jq = jq
        self.quiet = quiet
        self.wide = wide
        self._out = stdout or sys.stdout
        self._err = stderr or sys.stderr
        self._explained: set[str] = set()
        self._no_color = no_color or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"

    @contextmanager
    def queued(self, on_drop: Callable[[], object]) -> Iterator[None]:
        """Nothing waits for the readers of the two streams, here; `on_drop` hears of each that is dropped.

        The first one is told on stderr.
        """
        from stackctl.core.queued_output import QueuedOutput

        told = False

        def drop() -> None:
            nonlocal told
            on_drop()
            if not told:
                told = True
                self.warn("lines of the log can't be written, and are dropped: the disk is full, or nobody reads them")

        before = self._out, self._err
        queued: Any = QueuedOutput(self._out, drop), QueuedOutput(self._err, on_drop)
        self._out, self._err = queued
        try:
            yield
        finally:
            for one in queued:
                one.end()
            self._out, self._err = before

    # -- stdout: the result

    @cached_property
    def _filter(self) -> Filter | None:
        from stackctl.core.filters import Filter

        return None if self._jq is None else Filter(self._jq)

    def compile_filter(self) -> None:
        """The expression of --jq. Raises UsageError where it is none, ConfigError where jq is not installed."""
        assert self._filter is not None

    @property
    def width(self) -> int | None:
        """The columns of stdout's terminal; None off one."""
        return _count_columns(self._out)

    def json_document(self, document: Any) -> None:
        """The one JSON document of a command, indented for eyes on a terminal, compact lines off it."""
        self._write_json(document, indent=2 if self._out.isatty() else None)

    def json_line(self, document: Any) -> None:
        """One object of a `--loop` or `--watch`, flushed."""
        self._write_json(document)

    def _write_json(self, document: Any, *, indent: int | None = None) -> None:
        if self._filter is not None:
            self._write_filtered(self._filter, to_json(mask_values(document)))
            return
        text = to_json(mask_values(document), indent=indent).replace("##[", "#\\u0023[")

        def spell(found: re.Match[str]) -> str:
            """Within a string, where alone it can be, an escape means the same."""
            one = found[0]
            return one if one.isprintable() and is_utf8 else json.dumps(one)[1:-1]

        # In any other encoding its reader would take it for something else: JSON is UTF-8.
        is_utf8 = "é".encode(self._encoding, "replace") == "é".encode()
        if not text.replace("\n", "").isprintable() or not (is_utf8 or text.isascii()):
            text = _BEYOND_ASCII.sub(spell, text)
        self._write(text + "\n")

    def _write_filtered(self, wanted: Filter, document: str) -> None:
        """Strings as they are, other values as JSON, each from a line of its own."""
        try:
            for value in wanted.apply(document):
                self.document((value if isinstance(value, str) else to_json(value)) + "\n")
        except ValueError as error:
            self.filter_failed = True
            hint = "the command itself is done; see its whole document with --json"
            self.error(AnswerNo(f"--jq: {error}", code="jq-failed", hint=hint))

    def document(self, text: str) -> None:
        """A document, which ends as it ends."""
        if self._out.isatty():
            shown = self._encodable(escape_unprintable(text.replace("\r\n", "\n"), keep="\t\n"))
            self._write(shown if shown.endswith("\n") or not shown else shown + "\n")
            return
        self._out.flush()
        if (binary := getattr(self._out, "buffer", None)) is None:
            self._out.write(text)
            return
        # Whatever the locale, and names of files that are no text: the bytes that `-o FILE` has.
        left = memoryview(text.encode("utf-8", "surrogateescape"))
        while left:  # an unbuffered stream takes what it can
            left = left[binary.write(left) :]
        binary.flush()

    def diff(self, text: str) -> None:
        """A difference of two texts, as a document; nothing when there is none."""
        if not self._out.isatty():
            self.document(text and text + "\n")
            return
        for line in text.split("\n") if text else ():
            style = {"+": "green", "-": "red"}.get(line[:1]) if line[:3] not in ("+++", "---") else None
            self._print(escape_unprintable(line, keep="\t"), style)

    def line(self, text: str = "", style: str | None = None, *, exact: bool = False, hang: int = 2) -> None:
        """One line of the result; `exact`: it shows a part of a document, which stays as it is.

        On a terminal it is folded to the window; `hang`: how far the further lines are set in.
        """
        shown = self._encodable(to_sentence(text, exact=exact))
        for part in [shown] if exact or self.wide else _fold(shown, self.width, hang):
            self._print(part, style)

    def table(self, columns: Sequence[str | Column], rows: Iterable[Sequence[Any]]) -> None:
        """A table: on a terminal set to fit it, off one separated by tabs.

        A column that is but a name holds an id or a name. With --wide nothing is folded, left out or made a heading.
        None is a dash. A time is an age on a terminal, else ISO 8601.
        """
        from stackctl.core import tables

        declared = tables.to_columns(columns)
        shown = tuple(
            tuple(self._cell(cell, column.exact) for column, cell in zip(declared, row, strict=True)) for row in rows
        )
        table = tables.Table(declared, shown)
        if (width := self.width) is None:
            self._write("\n".join(tables.to_tab_separated(table)) + "\n")
            return
        if self.wide:
            self._set_table(table, table.measure())
            return
        group = table.group
        fitted = tables.fit_table(table.without(group), width)
        for number, (heading, part) in enumerate(table.split() if group else [((), table)]):
            if number:
                self._print("", None)
            if group:
                named = [f"{column.name} {cell}" for column, cell in zip(group, heading, strict=True)]
                whole = _fold("  ".join(named), width)
                for line in whole if len(whole) == 1 else [line for one in named for line in _fold(one, width)]:
                    self._print(line, "bold")
            if fitted is None:
                for line in tables.to_records(part, width):
                    self._print(line, None)
            else:
                self._set_table(part.without(fitted[0]), fitted[1], named=not number)
        if fitted is not None and fitted[0]:
            self.line(f"--wide shows {', '.join(column.name for column in reversed(fitted[0]))}, too", "dim")

    def names(self, values: Iterable[Any]) -> None:
        """What a script's loop takes, one a line."""
        for value in values:
            self.line(str(value))

    def csv(self, columns: Sequence[str | Column], rows: Iterable[Sequence[Any]]) -> None:
        """The rows of a table as a document: `to_csv`."""
        from stackctl.core.tables import to_columns

        declared = to_columns(columns)
        self.document(to_csv([one.name for one in declared], rows, [one.name for one in declared if one.exact]))

    def _set_table(self, table: Table, widths: Sequence[int], *, named: bool = True) -> None:
        from stackctl.core import tables

        heading, rule, *lines = tables.to_lines(table, widths, self._encodable("─"))
        if named:
            self._print(heading, "bold")
            self._print(rule, None)
        if lines:
            self._print("\n".join(lines), None)

    @property
    def has_screen(self) -> bool:
        """Whether stdout is a terminal that can be drawn on anywhere."""
        return self._out.isatty() and not self._terminal.is_dumb_terminal

    def screen(self) -> Screen:
        """The terminal's whole screen, for the length of a `with`; only where `has_screen`."""
        from stackctl.core.screen import Screen

        return Screen(self._terminal, lambda text: self._encodable(to_sentence(text)))

    def clear(self) -> None:
        """A terminal's screen; elsewhere nothing."""
        if self._out.isatty():
            self._terminal.clear()

    def _cell(self, value: Any, exact: bool) -> str:
        if value is None:
            return "-"
        if isinstance(value, datetime):
            aware = value if value.tzinfo else value.replace(tzinfo=UTC)
            if self._out.isatty() and not self.wide:
                return format_age((datetime.now(UTC) - aware).total_seconds())
            return f"{aware.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        return self._encodable(to_sentence(str(value), exact=exact).replace("\t", "\\t"))

    def _print(self, shown: str, style: str | None) -> None:
        """A line that is harmless already."""
        shown = self._encodable(shown)
        if style and self._out.isatty():
            self._terminal.print(shown, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)
        else:  # without rich, whose import costs a command a tenth of its start, and a line fifty times as much
            self._write(shown + "\n")

    @property
    def _encoding(self) -> str:
        return getattr(self._out, "encoding", None) or "utf-8"

    def _encodable(self, text: str) -> str:
        return to_encodable(text, self._encoding)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    @cached_property
    def _terminal(self) -> RichConsole:
        """Stdout, where it is a terminal."""
        return self._rich(self._out)

    def _rich(self, stream: IO[str]) -> RichConsole:
        from rich.console import Console as RichConsole

        return RichConsole(
            file=stream, force_terminal=True, color_system=None if self._no_color else "auto", highlight=False
        )

    # -- stderr: everything else

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked: both stdin and stderr are terminals."""
        return sys.stdin is not None and sys.stdin.isatty() and self._err.isatty()

    def info(self, text: str) -> None:
        """A remark that --quiet drops."""
        if not self.quiet:
            self._say(text)

    def fold_question(self, text: str) -> str:
        """What is asked on stderr, in lines that leave room for the answer."""
        width = _count_columns(self._err)
        return "\n".join(_fold(self._to_remark(text), width and max(width - _ANSWER, 1)))

    def warn(self, text: str) -> None:
        self._say(text, "warning: ", "33")

    def error(self, error: StackctlError) -> None:
        """`error:` and `hint:` on stderr; under --json the error document on stdout as well, but not under --jq."""
        first, *others = error.lines
        self._say(first, "error: ", "1;31")
        for line in others:
            self._say(line)
        if error.hint:
            self._say(error.hint, "hint: ", "36")
        self._point_to_explanation(error)
        if self.json_output and self._jq is None:
            body = {"code": error.code, "message": error.message, "hint": error.hint, "details": error.details}
            # Value by value: a password that reads `message` must not take the place of a key.
            self._write_json({"error": {**scrub_values(json.loads(to_json(body))), "code": error.code}})

    def warn_of(self, where: str, error: StackctlError) -> None:
        """A failure that does not end the command, such as one external database's; `where` it happened."""
        hint = f" ({error.hint})" if error.hint else ""
        self.warn(f"{where}: {error.message}{hint}")
        self._point_to_explanation(error)

    def _point_to_explanation(self, error: StackctlError) -> None:
        """On a terminal, for what a line or two can't explain: the command that does; once for each code."""
        wanted = self._err.isatty() and not self.quiet and error.code not in self._explained
        if wanted and error.exit_code != UsageError.exit_code and error.code not in _EXPLAIN_THEMSELVES:
            self._explained.add(error.code)
            self._say(f"stackctl explain {error.code}", "more: ", "36")

    def traceback(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._say(line)

    def _say(self, text: str, prefix: str = "", code: str = "") -> None:
        shown = prefix + self._to_remark(scrub(text))
        first, *others = [shown] if self.wide else _fold(shown, _count_columns(self._err))
        styled = self._styled(prefix, code) + first[len(prefix) :]
        with suppress(BrokenPipeError):
            self._err.write("\n".join([styled, *others]) + "\n")
            self._err.flush()

    def _to_remark(self, text: str) -> str:
        return to_encodable(to_sentence(text), getattr(self._err, "encoding", None) or "utf-8")

    def _styled(self, text: str, code: str) -> str:
        return text if not text or self._no_color or not self._err.isatty() else f"\x1b[{code}m{text}\x1b[0m"

    @contextmanager
    def progress(self, label: str, total: int | None = None, unit: str = "rows") -> Iterator[Progress]:
        """Progress of long work: a bar on a terminal, a plain line every few seconds off one, nothing when quiet."""
        from stackctl.core import progress

        if self.quiet:
            yield progress.Progress()
        elif self._err.isatty() and not self._no_color:
            with progress.BarProgress(self._rich(self._err), label, total) as bar:
                yield bar
        else:
            yield progress.LineProgress(self.info, label, total, unit)

"""Rows of a CSV file as people and spreadsheets write it: any separator, a byte order mark, headings in any case."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_SEPARATORS = (",", ";", "\t")
_SEPARATOR = re.compile(
    r'"?sep=([,;\t|])"?\r?\n', re.IGNORECASE
)  # the first line of a file that Excel wrote or is to read


class RowError(ValueError):
    """What is wrong, and the line where it stands, from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


def decode_text(data: bytes) -> str:
    """UTF-8, or UTF-16 with its mark, as spreadsheets save "Unicode text". Raises ValueError, which says what it is."""
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"is not {'UTF-16, as its first bytes say' if utf16 else 'UTF-8'}") from None
    if "\0" in text:
        raise ValueError("holds NUL characters")
    return text


def read_rows(
    text: str,
    columns: Sequence[str],
    required: Sequence[str],
    *,
    tabs: bool = False,
    warn: Callable[[str], None] = lambda text: None,
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows, each with its first line: what stands in `columns`, without spaces around it; empty rows are left out.

    `tabs`: nothing else separates. `warn` is told of columns that mean nothing. Raises RowError for a file of another
    form: a heading that misses, is there twice, or is nearly one of `columns`; a row of another length.
    """
    said = _SEPARATOR.match(text)
    separator = said[1] if said else "\t" if tabs else _guess_separator(text)
    lines = _number_rows(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    if said:
        next(lines, None)
    first, header = next((one for one in lines if one[1]), (1, []))
    names = ["_".join(name.strip().lower().split()) for name in header]
    _check_columns(first, names, header, columns, required, warn)
    for line, values in lines:
        if not any(value.strip() for value in values):
            continue  # an empty row of a sheet
        if len(values) < len(names) or any(value.strip() for value in values[len(names) :]):
            raise RowError(line, f"{len(values)} values for {len(names)} columns")
        yield line, {name: value.strip() for name, value in zip(names, values, strict=False) if name in columns}


def _guess_separator(text: str) -> str:
    """The one that the line of headings holds most of."""
    headings = text.lstrip().partition("\n")[0]
    return max(_SEPARATORS, key=headings.count)


def _number_rows(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows, each with its first line, of which a quoted cell may have several."""
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            never_closed = "unexpected end of data" in str(error)
            raise RowError(line, "a quote is never closed" if never_closed else str(error)) from error
        if values is None:
            return
        yield line, values


def _check_columns(
    line: int,
    names: Sequence[str],
    header: Sequence[str],
    columns: Sequence[str],
    required: Sequence[str],
    warn: Callable[[str], None],
) -> None:
    known = ", ".join(columns)
    for name in required:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"is {near[0]} meant? " if near else ""
            raise RowError(line, f"the column {name} is missing; {hint}known are {known}")
    for place, name in enumerate(names):
        if name and name in names[:place]:
            raise RowError(line, f"the column {name} is there twice")
        if name and name not in columns:
            if near := difflib.get_close_matches(name, columns, n=1):
                raise RowError(line, f"the column {name} is unknown; did you mean {near[0]}?")
            warn(f"the column {header[place].strip()} is not used; known are {known}")

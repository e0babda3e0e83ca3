"""Sample users, from CSV (as spreadsheets write it, too), JSON Lines or YAML."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackctl.core.errors import ConfigError
from stackctl.core.json_reader import check_characters, load_json
from stackctl.rules.model import MAX_RISK, RISKS, Context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

KEYS = ("email", "auth_method", "oauth_provider", "country_code", "risk_scores")
COLUMNS = ("email", "auth_method", "oauth_provider", "country_code", *RISKS)
REQUIRED = ("email", "auth_method")
_MAX_DIGITS, _MAX_SHOWN = 9, 40  # of a score that is read, and characters of a cell that an error quotes
_NO_LIST = "a list of users is expected, or users: with one"
_SEPARATORS = (",", ";", "\t")
_SEPARATOR = re.compile(
    r'"?sep=([,;\t|])"?\r?\n', re.IGNORECASE
)  # the first line of a file that Excel wrote or is to read


@dataclass(frozen=True)
class SampleUser:
    """A sample user. `place`: the line (of a file of lines) or the number (of a list) where it stands, from 1."""

    place: int
    context: Context


def load_users(path: Path, warn: Callable[[str], None] = lambda text: None) -> Iterator[SampleUser]:
    """The users of a file, by its ending: .csv, .tsv, .jsonl (or .ndjson), .yaml (or .yml), .json.

    `warn` is told of columns that mean nothing here. Raises ConfigError (`users-unreadable`, `invalid-user` with the
    row).
    """
    text = _read_text(path)
    match path.suffix.lower():
        case ".csv" | ".tsv":
            rows = _read_csv(path, text, warn)
        case ".jsonl" | ".ndjson":
            rows = _read_json_lines(path, text)
        case ".json":
            rows = _read_json(path, text)
        case ".yaml" | ".yml":
            rows = _read_yaml(path, text)
        case _:
            raise ConfigError(
                f"{path}: sample users come as .csv, .tsv, .jsonl or .yaml",
                code="users-unreadable",
                hint="rename the file",
            )
    for place, row in rows:
        try:
            yield SampleUser(place, parse_user(row))
        except ValueError as error:
            raise _invalid_user(path, place, str(error)) from None


def _read_text(path: Path) -> str:
    """UTF-8, or UTF-16 with its mark, as spreadsheets save "Unicode text"."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}", code="users-unreadable") from error
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    hint = "save the file as UTF-8"
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        what = "UTF-16, as its first bytes say" if utf16 else "UTF-8"
        raise ConfigError(f"{path} is not {what}", code="users-unreadable", hint=hint) from error
    if "\0" in text:
        raise ConfigError(f"{path} holds NUL characters", code="users-unreadable", hint=hint)
    return text


def parse_score(text: str) -> int:
    """A risk score as it is typed. Raises ValueError."""
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        shown = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}… ({len(text):,} characters)"
        raise ValueError(f"{shown!r} is not a whole number from 0 to {MAX_RISK}")
    return int(text)


def parse_user(row: Any) -> Context:
    """A user as a mapping of KEYS. Raises ValueError, whose message says what is expected."""
    if not isinstance(row, dict):
        raise ValueError("a user is one object")
    for key in row:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            raise ValueError(f"there is no {key!r}; " + (f"did you mean {near[0]}?" if near else f"{', '.join(KEYS)}"))
    for key in ("email", "auth_method", "oauth_provider", "country_code"):
        value = row.get(key)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{key} is text: put it in quotes")  # NO and 5 are none to YAML
        check_characters(value)
    scores = row.get("risk_scores") or {}
    if not isinstance(scores, dict):
        raise ValueError(f"risk_scores is a mapping of {', '.join(RISKS)}")
    return Context.from_user(
        email=row.get("email"),
        auth_method=row.get("auth_method") or "password",
        oauth_provider=row.get("oauth_provider"),
        country_code=row.get("country_code"),
        risk_scores=scores,
    )


def _read_csv(path: Path, text: str, warn: Callable[[str], None]) -> Iterator[tuple[int, dict[str, Any]]]:
    said = _SEPARATOR.match(text)
    separator = said[1] if said else _guess_separator(path, text)
    lines = _number_rows(path, csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    if said:
        next(lines, None)
    first, header = next((one for one in lines if one[1]), (1, []))
    names = [_to_column(name) for name in header]
    _check_columns(path, first, names, header, warn)
    for line, values in lines:
        if not any(value.strip() for value in values):
            continue  # an empty row of a sheet
        if len(values) < len(names) or any(value.strip() for value in values[len(names) :]):
            raise _invalid_user(path, line, f"{len(values)} values for {len(names)} columns")
        row = {name: value.strip() for name, value in zip(names, values, strict=False) if name in COLUMNS}
        yield line, _nest_scores(path, line, row)


def _guess_separator(path: Path, text: str) -> str:
    """The one that the line of headings holds most of."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    headings = text.lstrip().partition("\n")[0]
    return max(_SEPARATORS, key=headings.count)


def _number_rows(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows, each with its first line, of which a quoted cell may have several."""
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            never_closed = "unexpected end of data" in str(error)
            raise _invalid_user(path, line, "a quote is never closed" if never_closed else str(error)) from error
        if values is None:
            return
        yield line, values


def _to_column(heading: str) -> str:
    return "_".join(heading.strip().lower().split())


def _check_columns(
    path: Path, line: int, names: Sequence[str], header: Sequence[str], warn: Callable[[str], None]
) -> None:
    """Refuse a heading that misses, is there twice, or is nearly one of ours; `warn` of what is unlike them all."""
    for name in REQUIRED:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"is {near[0]} meant? " if near else ""
            raise _invalid_user(path, line, f"the column {name} is missing; {hint}known are {', '.join(COLUMNS)}")
    for place, name in enumerate(names):
        if name and name in names[:place]:
            raise _invalid_user(path, line, f"the column {name} is there twice")
        if name and name not in COLUMNS:
            if near := difflib.get_close_matches(name, COLUMNS, n=1):
                raise _invalid_user(path, line, f"the column {name} is unknown; did you mean {near[0]}?")
            warn(f"{path}: the column {header[place].strip()} is not used; known are {', '.join(COLUMNS)}")


def _nest_scores(path: Path, line: int, row: dict[str, str]) -> dict[str, Any]:
    scores: dict[str, int] = {}
    for name in RISKS:
        text = row.pop(name, "").strip()
        if text:
            try:
                scores[name] = parse_score(text)
            except ValueError as error:
                raise _invalid_user(path, line, f"{name}: {error}") from None
    return {**row, "risk_scores": scores}


def _read_json_lines(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    # Nothing else ends a line: a text may hold U+2028 and its kin as they are.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = load_json(line)
        except ValueError as error:
            raise _invalid_user(path, number, _tell_json(error)) from error
        yield number, row


def _read_json(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    try:
        data = load_json(text)
    except ValueError as error:
        raise _invalid_user(path, getattr(error, "lineno", 1), _tell_json(error)) from error
    rows = data.get("users") if isinstance(data, dict) else data
    if not isinstance(rows, list):
        raise _invalid_user(path, 1, _NO_LIST)
    yield from enumerate(rows, 1)


def _read_yaml(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    import yaml

    from stackctl.core.yaml_reader import compose, construct, list_pairs

    row = 0
    try:
        rows = compose(text)
        if isinstance(rows, yaml.MappingNode):
            rows = next((value for key, value in list_pairs(rows) if key.value == "users"), None)
        if not isinstance(rows, yaml.SequenceNode):
            raise _invalid_user(path, 1, _NO_LIST)
        for row, node in enumerate(rows.value, 1):
            yield row, construct(node)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise _invalid_user(path, row or line, getattr(error, "problem", None) or "not YAML") from error


def _tell_json(error: ValueError) -> str:
    return f"not JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)


def _invalid_user(path: Path, place: int, what: str) -> ConfigError:
    return ConfigError(
        f"{path}:{place}: {what}",
        code="invalid-user",
        hint="see `stackctl rules eval --help`",
        details={"file": str(path), "row": place},
    )

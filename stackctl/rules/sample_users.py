"""Sample users, from CSV (as spreadsheets write it, too), JSON Lines or YAML."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackctl.core.csv_rows import RowError, decode_text, read_rows
from stackctl.core.errors import ConfigError
from stackctl.core.files import STDIN, read_bounded
from stackctl.core.json_reader import check_characters, load_json
from stackctl.rules.model import MAX_RISK, RISKS, Context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEYS = ("email", "auth_method", "oauth_provider", "country_code", "risk_scores")
COLUMNS = ("email", "auth_method", "oauth_provider", "country_code", *RISKS)
REQUIRED = ("email", "auth_method")
_MAX_BYTES = 256 << 20
_MAX_DIGITS, _MAX_SHOWN = 9, 40  # of a score that is read, and characters of a cell that an error quotes
_NO_LIST = "a list of users is expected, or users: with one"


@dataclass(frozen=True)
class SampleUser:
    """A sample user. `place`: the line (of a file of lines) or the number (of a list) where it stands, from 1."""

    place: int
    context: Context


def load_users(path: Path, warn: Callable[[str], None] = lambda text: None) -> Iterator[SampleUser]:
    """The users of a file, by its ending: .csv, .tsv, .jsonl (or .ndjson), .yaml (or .yml), .json; of stdin, by how
    its text begins.

    `warn` is told of columns that mean nothing here. Raises ConfigError (`users-unreadable`, `invalid-user` with the
    row).
    """
    text = _read_text(path)
    match _guess_ending(text) if path == STDIN else path.suffix.lower():
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


def _guess_ending(text: str) -> str:
    """Of a text without a name."""
    start = text.lstrip()
    if start.startswith(("[", "{")):
        return ".json" if start[0] == "[" or re.match(r'\{\s*"users"', start) else ".jsonl"
    headings = re.split("[,;\t]", start.partition("\n")[0])
    return ".csv" if "email" in [one.strip(' "\r').lower() for one in headings] or start[:4] == "sep=" else ".yaml"


def _read_text(path: Path) -> str:
    try:
        return decode_text(read_bounded(path, _MAX_BYTES))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}", code="users-unreadable") from error
    except ValueError as error:
        raise ConfigError(f"{path} {error}", code="users-unreadable", hint="save the file as UTF-8") from error


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
    tabs = path.suffix.lower() == ".tsv"
    try:
        for line, row in read_rows(text, COLUMNS, REQUIRED, tabs=tabs, warn=lambda told: warn(f"{path}: {told}")):
            yield line, _nest_scores(path, line, row)
    except RowError as error:
        raise _invalid_user(path, error.line, str(error)) from error


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

"""Sample users, from CSV, JSON Lines or YAML."""

from __future__ import annotations

import csv
import difflib
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackctl.core.errors import ConfigError
from stackctl.rules.model import RISKS, Context

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

KEYS = ("email", "auth_method", "oauth_provider", "country_code", "risk_scores")
COLUMNS = ("email", "auth_method", "oauth_provider", "country_code", *RISKS)
REQUIRED = ("email", "auth_method")


@dataclass(frozen=True)
class SampleUser:
    """A sample user. `place`: the line (of a file of lines) or the number (of a list) where it stands, from 1."""

    place: int
    context: Context


def load_users(path: Path) -> Iterator[SampleUser]:
    """The users of a file, by its ending: .csv, .jsonl (or .ndjson), .yaml (or .yml), .json.

    Raises ConfigError (`users-unreadable`, `invalid-user` with the row).
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}", code="users-unreadable") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8", code="users-unreadable", hint="save the file as UTF-8") from error
    match path.suffix.lower():
        case ".csv":
            rows = _read_csv(path, text)
        case ".jsonl" | ".ndjson":
            rows = _read_json_lines(path, text)
        case ".yaml" | ".yml" | ".json":
            rows = _read_yaml(path, text)
        case _:
            raise ConfigError(
                f"{path}: sample users come as .csv, .jsonl or .yaml", code="users-unreadable", hint="rename the file"
            )
    for place, row in rows:
        try:
            yield SampleUser(place, parse_user(row))
        except ValueError as error:
            raise _invalid_user(path, place, str(error)) from None


def parse_user(row: Mapping[str, Any]) -> Context:
    """A user as a mapping of KEYS. Raises ValueError, whose message says what is expected."""
    for key in row:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            raise ValueError(f"there is no {key!r}; " + (f"did you mean {near[0]}?" if near else f"{', '.join(KEYS)}"))
    for key in ("email", "auth_method", "oauth_provider", "country_code"):
        if row.get(key) is not None and not isinstance(row[key], str):
            raise ValueError(f"{key} is text")
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


def _read_csv(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in REQUIRED if name not in header]
        if missing:
            raise _invalid_user(path, 1, f"the column {missing[0]} is missing; known are {', '.join(COLUMNS)}")
        for name in header:
            if name not in COLUMNS:
                near = difflib.get_close_matches(name, COLUMNS, n=1)
                raise _invalid_user(
                    path, 1, f"the column {name} is unknown" + (f"; did you mean {near[0]}?" if near else "")
                )
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise _invalid_user(path, reader.line_num, f"{len(values)} values for {len(header)} columns")
            row = dict(zip(header, values, strict=True))
            yield reader.line_num, _nest_scores(path, reader.line_num, row)
    except csv.Error as error:
        raise _invalid_user(path, reader.line_num, str(error)) from error


def _nest_scores(path: Path, line: int, row: dict[str, str]) -> dict[str, Any]:
    scores: dict[str, int] = {}
    for name in RISKS:
        text = row.pop(name, "").strip()
        if text:
            if not text.isascii() or not text.isdigit():
                raise _invalid_user(path, line, f"{name}: {text!r} is not a whole number")
            scores[name] = int(text)
    return {**row, "risk_scores": scores}


def _read_json_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _invalid_user(path, number, f"not JSON: {error}") from error
        if not isinstance(row, dict):
            raise _invalid_user(path, number, "a line is one object")
        yield number, row


def _read_yaml(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    import yaml

    from stackctl.core.yaml_reader import compose

    try:
        root = compose(text)
        data: Any = None if root is None else yaml.SafeLoader("").construct_document(root)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise _invalid_user(path, mark.line + 1 if mark else 1, "not YAML") from error
    rows = data.get("users") if isinstance(data, dict) else data
    if not isinstance(rows, list):
        raise _invalid_user(path, 1, "a list of users is expected, or users: with one")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise _invalid_user(path, number, "a user is a mapping")
        yield number, row


def _invalid_user(path: Path, place: int, what: str) -> ConfigError:
    return ConfigError(
        f"{path}:{place}: {what}",
        code="invalid-user",
        hint="see `stackctl rules eval --help`",
        details={"file": str(path), "row": place},
    )

"""What a mapping means, as JSON text that is kept beside each copy made from it, and what a change of it asks for.

Two texts with one meaning (comments, white space, letter case of key words) have one fingerprint. What a copy was made
from is compared with what feeds it now, part by part, so that a change costs no more than it must.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, cast

from stackctl import __version__
from stackctl.core.errors import StateError
from stackctl.mapping.target_statements import TYPES
from stackctl.postgres.lexer import tokenize

if TYPE_CHECKING:
    from stackctl.mapping.dialect import Dialect
    from stackctl.mapping.model import Column, ColumnType, Mapping

FORMAT = 1  # of the definition; a later one is refused
_OPERATOR = frozenset("+-*/<>=~!@#%^&|`?")
# What rows are read from and how: any change of these may concern every row.
_CONTENT = {
    "select": "the select",
    "filter": "the filter",
    "source": "the source",
    "tenancy": "the tenancy's columns",
    "deleted_as": "deleted_as",
    "depends_on": "depends_on",
}

Kind = Literal["same", "unknown", "resend", "alter", "rebuild"]


@dataclass(frozen=True)
class MappingChange:
    """How a mapping differs from what its copy was made from; `reasons` names the parts, for people.

    - `same`: not at all, or in nothing that a row shows.
    - `unknown`: nobody knows what the copy was made from.
    - `resend`: the table stays as it is.
    - `alter`: columns are `added`, or allowed to be null (`relaxed`).
    - `rebuild`: the table would lose something that its readers may rely on; it is rebuilt when that is asked for.

    `resend`: all rows are to be sent again. `moved`: into another table; the one that there was stays.
    """

    kind: Kind
    reasons: tuple[str, ...] = ()
    resend: bool = False
    moved: bool = False
    added: tuple[Column, ...] = ()
    relaxed: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """What is different, in one clause."""
        return ", ".join(self.reasons)


@lru_cache(maxsize=128)
def normalize_sql(text: str) -> str:
    """The tokens of `text` without what means nothing: comments, white space, the letter case outside of quotes."""
    parts: list[str] = []
    end = -1
    for token in tokenize(text):
        if token.kind == "comment":
            continue
        word = token.text.lower() if token.kind == "word" and token.text.isascii() else token.text
        # Of operators, `@-` is another than `@ -`.
        joined = token.start == end and {parts[-1][-1], word[0]} <= _OPERATOR
        parts = [*parts[:-1], parts[-1] + word] if joined else [*parts, word]
        end = token.end
    return " ".join(parts).removesuffix(";").rstrip()


def describe_mapping(mapping: Mapping) -> str:
    """The definition of a copy that is made from `mapping`, as of now."""
    written = {"stackctl": __version__, "written": datetime.now(UTC).isoformat()}
    return json.dumps(written | _describe(mapping), ensure_ascii=False)


def read_written(text: str | None) -> datetime | None:
    """When a definition was written down, in UTC, if that can be told. Raises StateError `newer-stackctl`."""
    try:
        found = datetime.fromisoformat(str((_parse(text) or {}).get("written")))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def fingerprint_mapping(mapping: Mapping) -> str:
    """The hash of what `mapping` means, in hexadecimal."""
    return _hash(_describe(mapping))


def compare_definition(text: str | None, mapping: Mapping, dialect: Dialect) -> MappingChange:
    """What has changed since a copy was made from the definition `text` (None: nobody wrote it down).

    A text that can't be read counts as unknown. Raises StateError `newer-stackctl`.
    """
    old = _parse(text)
    if old is None:
        return MappingChange("unknown", ("what the copy was made from is not known",), resend=True)
    new = _describe(mapping)
    if _hash(old) == _hash(new):
        return MappingChange("same")
    added, relaxed, lost, content = _compare_columns(old["columns"], mapping.columns, dialect)
    if old["key"] != new["key"]:
        lost.append(f"the key was ({', '.join(old['key'])})")
    if old.get("target") != new["target"]:
        lost.append(f"the table was {old.get('target')}")
    content += [f"{name} has changed" for part, name in _CONTENT.items() if old.get(part) != new[part]]
    shape = [*(f"{column.name} is new" for column in added), *(f"{name} may be null" for name in relaxed)]
    reasons = (*lost, *shape, *content)
    if lost:
        return MappingChange("rebuild", reasons, moved=old.get("target") != new["target"])
    return MappingChange(
        "alter" if shape else "resend",
        reasons,
        resend=bool(added or content),
        added=tuple(added),
        relaxed=tuple(relaxed),
    )


def _compare_columns(
    before: dict[str, str], columns: tuple[Column, ...], dialect: Dialect
) -> tuple[list[Column], list[str], list[str], list[str]]:
    """Columns that are added, and those that may be null now; what the table would lose, and what only rows show."""
    added: list[Column] = []
    relaxed: list[str] = []
    lost = [f"the column {name} is gone" for name in before if name not in {column.name for column in columns}]
    content: list[str] = []
    for column in columns:
        name = column.name
        if name not in before:
            if column.nullable:
                added.append(column)
            else:
                lost.append(f"{name} is new, and may not be null")
            continue
        type_, _, null = before[name].partition(" ")
        if type_ != column.type:
            # SQLite keeps several types as text, each in a spelling of its own.
            kept = _get_type(dialect, type_) == _get_type(dialect, column.type)
            (content if kept else lost).append(f"{name} was {type_}")
        if null and not column.nullable:
            lost.append(f"{name} may not be null")
        elif column.nullable and not null:
            if dialect == "sqlite":  # it takes no NOT NULL away
                lost.append(f"{name} may be null")
            else:
                relaxed.append(name)
    return added, relaxed, lost, content


def _get_type(dialect: Dialect, type_: str) -> str:
    return TYPES[dialect].get(cast("ColumnType", type_), type_)


def _describe(mapping: Mapping) -> dict[str, Any]:
    tenancy = mapping.tenancy
    return {
        "format": FORMAT,
        "source": mapping.source,
        "target": mapping.target,
        "key": mapping.key,
        "columns": {column.name: column.type + (" null" if column.nullable else "") for column in mapping.columns},
        "select": normalize_sql(mapping.select),
        "filter": None if mapping.filter is None else normalize_sql(mapping.filter),
        "tenancy": None if tenancy is None else {tenancy.table: tenancy.on},
        "deleted_as": mapping.deleted_as,
        "depends_on": {
            one.table: {column: normalize_sql(expression) for column, expression in one.on.items()}
            for one in mapping.depends_on
        },
    }


def _hash(definition: dict[str, Any]) -> str:
    meaning = {name: value for name, value in definition.items() if name not in ("stackctl", "written")}
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


def _parse(text: str | None) -> dict[str, Any] | None:
    """The definition, or None for one that can't be read. Raises StateError `newer-stackctl`."""
    try:
        found = json.loads(text or "")
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    definition = cast("dict[str, Any]", found)
    format_ = definition.get("format")
    if isinstance(format_, int) and format_ > FORMAT:
        raise StateError(
            f"the copy was made by stackctl {definition.get('stackctl')}, which this version ({__version__}) can't"
            " follow",
            code="newer-stackctl",
            hint=f"use stackctl {definition.get('stackctl')} or later",
        )
    columns, key = definition.get("columns"), definition.get("key")
    if format_ != FORMAT or not isinstance(columns, dict) or not isinstance(key, dict):
        return None
    if not all(isinstance(one, str) for one in cast("dict[str, object]", columns).values()):
        return None
    return definition


def list_shape(text: str | None) -> tuple[list[str], list[str]] | None:
    """Columns and key of a copy's definition, or None where it is not known. Raises StateError `newer-stackctl`."""
    found = _parse(text)
    return None if found is None else (list(found["columns"]), list(found["key"]))

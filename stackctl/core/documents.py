"""Results in the forms that programs read: JSON and CSV, with what looks like a secret masked."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from stackctl.core.redaction import mask_shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def to_json(document: Any, *, indent: int | None = None) -> str:
    """One JSON document; times are ISO 8601 in UTC, ids and amounts are strings."""
    return json.dumps(document, default=_plain, indent=indent, ensure_ascii=False)


def to_masked_json(document: Any) -> str:
    """One JSON document of a result: its strings hold nothing that looks like a secret."""
    return to_json(mask_values(document))


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]], exact: Sequence[str] = ()) -> str:
    """A table as RFC 4180: values whole, times in ISO 8601, nothing for None."""

    def value(cell: Any, name: str) -> str:
        text = "" if cell is None else cell if isinstance(cell, str) else to_json(cell).strip('"')
        return text if name in exact else mask_shapes(text)

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([value(cell, name) for name, cell in zip(columns, row, strict=True)] for row in rows)
    return text.getvalue()


@dataclass(frozen=True)
class Exact:
    """A part of a JSON document that is a document itself (SQL, a condition, a diff): shown as it is."""

    value: Any


def mask_values(value: Any) -> Any:
    """A result whose strings, the names of keys included, hold nothing that looks like a secret."""
    match value:
        case str() | Path():
            return mask_shapes(str(value))
        case dict():
            return {_mask_name(name): mask_values(inner) for name, inner in value.items()}
        case list() | tuple():
            return [mask_values(inner) for inner in value]
        case _:
            return value


@lru_cache(1024)
def _mask_name(name: Any) -> Any:
    return mask_shapes(name) if isinstance(name, str) else name


def _plain(value: Any) -> Any:
    match value:
        case Exact():
            return value.value
        case datetime():
            aware = value if value.tzinfo else value.replace(tzinfo=UTC)
            return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case UUID() | Path() | Decimal():
            return str(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form")

"""Whether a table that exists in an external database is what a mapping needs; the same for every kind of target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.core.errors import StateError
from stackctl.mapping.target_statements import TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stackctl.mapping.compile import Compiled


@dataclass(frozen=True)
class TableColumn:
    """A column as the database has it; `required`: a row without a value for it is rejected."""

    type: str
    required: bool


def to_postgres_type(type_: str) -> str:
    """A type of PostgreSQL in one spelling, as `format_type` gives it; six digits are all that a timestamp has."""
    spelled = {"timestamp": "timestamp without time zone", "timestamptz": "timestamp with time zone"}
    spelled |= {name.replace("timestamp", "timestamp(6)"): name for name in spelled.values()}
    return spelled.get(type_.lower(), type_.lower())


def check_table(
    compiled: Compiled,
    columns: Mapping[str, TableColumn],
    where: str,
    *,
    to_canonical_type: Callable[[str], str],
    find_key_problem: Callable[[], str | None],
) -> None:
    """Raise StateError `table-differs` unless the columns suit the mapping; the key is looked at when they do.

    Further columns are the consumer's, as long as they may be left out.
    """
    mapping = compiled.mapping
    problems: list[str] = []
    for column in mapping.columns:
        wanted = TYPES[compiled.dialect][column.type]
        if column.name not in columns:
            problems.append(f"{column.name} is missing")
        elif to_canonical_type(columns[column.name].type) != to_canonical_type(wanted):
            problems.append(f"{column.name} is {columns[column.name].type}, not {wanted}")
    known = {column.name for column in mapping.columns}
    problems += [f"{name} must not be null" for name, one in columns.items() if one.required and name not in known]
    if not problems and (key_problem := find_key_problem()) is not None:
        problems.append(key_problem)
    if problems:
        raise StateError(
            f'{where}: the table "{mapping.target}" exists with other columns: {"; ".join(problems)}',
            code="table-differs",
            hint="rename or drop that table (stackctl creates its own), or correct the mapping",
            details={"table": mapping.target, "differences": problems},
        )

"""The kinds of database that a mapping can be compiled for."""

from __future__ import annotations

from typing import Literal, get_args

Dialect = Literal["postgres", "sqlite", "duckdb", "mysql", "clickhouse"]
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)

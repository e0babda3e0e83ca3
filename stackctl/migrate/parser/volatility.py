"""Whether a function gives every row the same value: if not, a default of it rewrites the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

VOLATILE = frozenset(
    ("clock_timestamp", "timeofday", "random", "random_normal", "setseed", "gen_random_uuid", "gen_random_bytes",
     "uuidv4", "uuidv7", "uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4", "uuid_generate_v7", "nextval",
     "currval", "lastval", "setval", "gen_salt", "pg_sleep", "cuid", "ulid", "nanoid")
)  # fmt: skip
STEADY = frozenset(
    ("now", "transaction_timestamp", "statement_timestamp", "current_timestamp", "localtimestamp", "current_time",
     "localtime", "current_setting", "current_database", "current_schema", "to_jsonb", "to_json", "jsonb_build_object",
     "jsonb_build_array", "json_build_object", "json_build_array", "jsonb_object", "lower", "upper", "md5", "length",
     "concat", "format", "replace", "left", "right", "lpad", "rpad", "round", "floor", "ceil", "abs", "to_char",
     "to_date", "to_timestamp", "date_trunc", "date_part", "timezone", "make_interval", "make_date", "make_timestamptz",
     "decode", "encode", "sha256", "string_to_array", "array_fill", "txid_current", "pg_current_xact_id", "int4range",
     "tstzrange", "daterange", "point", "uuid_nil", "convert_to", "to_tsvector", "hashtext", "btrim")
)  # fmt: skip


def find_most_volatile(
    calls: Iterable[str], ask: Callable[[str], bool | None] | None = None
) -> tuple[str, bool | None]:
    """The function that decides, and whether it is volatile; None: not known. No call at all is not volatile.

    `ask` knows more functions than the built-in ones.
    """
    unknown: str | None = None
    for call in calls:
        found = _is_volatile(call, ask)
        if found:
            return call, True
        if found is None:
            unknown = unknown or call
    return (unknown, None) if unknown else ("", False)


def _is_volatile(call: str, ask: Callable[[str], bool | None] | None) -> bool | None:
    bare = call.removeprefix("pg_catalog.").lower()
    if bare in STEADY:
        return False
    if bare.rpartition(".")[2] in VOLATILE:
        return True
    return ask(call) if ask else None

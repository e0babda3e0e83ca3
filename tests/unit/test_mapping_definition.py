"""What a change of a mapping asks of its copies."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from stackctl.core.bundled import find_bundled
from stackctl.core.errors import StateError
from stackctl.mapping.definition import compare_definition, describe_mapping, fingerprint_mapping, normalize_sql
from stackctl.mapping.files import load_mappings
from stackctl.mapping.model import Column, Dependency, Mapping

MAPPINGS = load_mappings(find_bundled("mappings")).mappings
USERS = MAPPINGS["users"]


def change(changed: Mapping, of: Mapping = USERS, dialect: Any = "postgres") -> Any:
    return compare_definition(describe_mapping(of), changed, dialect)


def with_columns(mapping: Mapping, **columns: str | None) -> Mapping:
    """The mapping with these columns added, or of another type; None takes one away."""
    kept = tuple(column for column in mapping.columns if column.name not in columns)
    new = [(name, text.split()) for name, text in columns.items() if text is not None]
    added = [Column(name, words[0], words[1:] == ["null"]) for name, words in new]  # type: ignore[arg-type]
    return replace(mapping, columns=(*kept, *added))


@pytest.mark.quick
@pytest.mark.parametrize(
    "text",
    [
        "SELECT a, b FROM t WHERE x = 'It' -- why",
        "select  A,b\nfrom T /* of all */ where X='It';",
        "SELECT a,b FROM t WHERE x='It'",
    ],
)
def test_texts_of_one_meaning_are_the_same(text: str) -> None:
    assert normalize_sql(text) == "select a , b from t where x = 'It'"


@pytest.mark.parametrize(
    ("one", "other"),
    [("'a'", "'A'"), ('"a"', '"A"'), ("a @- b", "a @ -b"), ("'a  b'", "'a b'"), ("a.b", "a.c"), ("$$x$$", "$$X$$")],
)
def test_texts_of_another_meaning_are_not(one: str, other: str) -> None:
    assert normalize_sql(one) != normalize_sql(other)


def test_what_a_row_does_not_show_changes_nothing() -> None:
    for mapping in MAPPINGS.values():
        columns, tables = mapping.columns[::-1], mapping.depends_on[::-1]
        other = replace(mapping, select=f"/* new */ {mapping.select}", columns=columns, depends_on=tables, lookup={})
        assert fingerprint_mapping(other) == fingerprint_mapping(mapping)
        assert change(other, mapping).kind == "same"
    assert len({fingerprint_mapping(mapping) for mapping in MAPPINGS.values()}) == len(MAPPINGS)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (replace(USERS, select=USERS.select + " AND true"), "the select has changed"),
        (replace(USERS, filter='"isAnonymous"'), "the filter has changed"),
        (replace(USERS, source="Team"), "the source has changed"),
        (replace(USERS, deleted_as="User"), "deleted_as has changed"),
        (replace(USERS, depends_on=(Dependency("Team", {"teamId": '"x"'}),)), "depends_on has changed"),
    ],
)
def test_another_select_sends_all_rows_again(changed: Mapping, reason: str) -> None:
    found = change(changed)
    assert (found.kind, found.resend, found.description) == ("resend", True, reason)


def test_columns_that_may_be_null_are_added() -> None:
    found = change(replace(with_columns(USERS, nick="text null"), select="SELECT 1"))
    assert (found.kind, found.resend) == ("alter", True)
    assert found.added == (Column("nick", "text", True),)
    assert found.description == "nick is new, the select has changed"


def test_a_not_null_that_goes_needs_no_row_again() -> None:
    found = change(with_columns(USERS, is_anonymous="boolean null"))
    assert (found.kind, found.resend, found.relaxed) == ("alter", False, ("is_anonymous",))
    assert change(with_columns(USERS, is_anonymous="boolean null"), dialect="sqlite").kind == "rebuild"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (with_columns(USERS, nick="text"), "nick is new, and may not be null"),
        (with_columns(USERS, display_name="text"), "display_name may not be null"),
        (with_columns(USERS, display_name="uuid null"), "display_name was text"),
        (with_columns(USERS, display_name=None), "the column display_name is gone"),
        (replace(USERS, key={"id": "projectUserId", "display_name": "displayName"}), "the key was (id)"),
        (replace(USERS, key={"id": "otherId"}), "the key was (id)"),
        (replace(USERS, target="people"), "the table was users"),
    ],
)
def test_what_readers_would_lose_is_built_anew(changed: Mapping, reason: str) -> None:
    found = change(changed)
    assert (found.kind, found.description) == ("rebuild", reason)


def test_types_that_sqlite_keeps_alike_are_sent_again() -> None:
    changed = with_columns(USERS, display_name="uuid null")
    assert change(changed, dialect="sqlite").kind == "resend"
    assert change(with_columns(USERS, display_name="bigint null"), dialect="sqlite").kind == "rebuild"


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", "{}", '{"format": 1}', '{"format": "2"}',
                                  '{"format": 1, "key": {}, "columns": {"a": 1}}', '{"format": 0}'])  # fmt: skip
def test_a_definition_that_can_not_be_read_is_unknown(text: str | None) -> None:
    found = compare_definition(text, USERS, "postgres")
    assert (found.kind, found.resend) == ("unknown", True)


def test_one_of_a_later_version_names_it() -> None:
    text = json.dumps(json.loads(describe_mapping(USERS)) | {"format": 2, "stackctl": "7.1.0"})
    with pytest.raises(StateError, match=r"made by stackctl 7\.1\.0") as caught:
        compare_definition(text, USERS, "postgres")
    assert (caught.value.code, caught.value.hint) == ("newer-stackctl", "use stackctl 7.1.0 or later")

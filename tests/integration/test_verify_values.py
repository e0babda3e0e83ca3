"""No value that a copy keeps is a difference: each type on each kind of target, also as a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stackctl.sync import service
from stackctl.sync.check import verify
from stackctl.sync.engine import comparison
from stackctl.sync.stop import Stop
from tests.backend import MINE, Connection, Project, add_user, differences, no_capture, sequence, sync

if TYPE_CHECKING:
    import uuid

    from stackctl.sync.pipeline import Pipeline
    from tests.conftest import Connect

# Values at the edges of each type, and values that are spelled in more than one way.
VALUES = {
    "note": ["", " ", "NULL", "\\N", "a|1:b", "é", "e\u0301", "\U0001f600", "\n", "\r\n", "\x01", "1.0"],
    "flag": ["true", "f"],
    "small": ["0", "-2147483648", "2147483647"],
    "large": ["9223372036854775807", "-9223372036854775808", "1000000000000000000"],
    "ratio": ["0", "-0", "1", "1.0", "1e15", "1e16", "0.1", "1e308", "5e-324", "Infinity", "-Infinity",
              "0.30000000000000004"],
    "amount": ["1.0", "1.00", "1", "100", "1e2", "0", "0.00", "-0.0", "-1.50", "0.0000000001", "12345678901234567890"],
    "day": ["2024-02-29", "0001-01-01", "9999-12-31", "12345-01-01", "infinity", "-infinity"],
    "at": ["2024-01-01", "2024-01-01 00:00:00.1", "2024-01-01 00:00:00.123456", "2024-01-01 12:30", "0001-01-01",
           "12345-01-01", "infinity", "-infinity"],
    "at_zone": ["2024-01-01 00:00:00+00", "2024-01-01 00:00:00.10+05:30", "2024-07-01 00:00:00.123456-03",
                "0001-01-01 00:00:00+00", "infinity", "-infinity"],
    "document": ["1", "1.0", "1.00", "1e2", "-0", "-0.0", "null", '"x"', '{"b":1,"a":{}}', '{ "b" : 1 , "a" : { } }',
                 '[1,2.50, "é", "\\u00e9", "\\\\", "/"]', '{"a": 1, "a": 2}', "123456789012345678901234567890.10"],
}  # fmt: skip
# Not every kind of target keeps these.
SOME = {
    "postgres": {
        "ratio": ["NaN"],
        "amount": ["NaN", "Infinity", "-Infinity", "1e-40", "1e60"],
        "day": ["0044-03-15 BC", "4714-11-24 BC", "5874897-12-31"],
        "at": ["0044-03-15 12:00 BC", "294276-12-31"],
        "at_zone": ["0044-03-15 12:00+00 BC", "294276-12-31 00:00+00"],
    },
    "duckdb": {"ratio": ["NaN"]},
}
SOME["sqlite"] = SOME["postgres"] | {"ratio": []}
TYPES = {
    "note": "text", "flag": "boolean", "small": "integer", "large": "bigint", "ratio": "double", "amount": "numeric",
    "day": "date", "at": "timestamp", "at_zone": "timestamptz", "document": "json",
}  # fmt: skip
CASTS = {"double": "float8", "json": "jsonb"}


def mapping(project: Project, *, key: str | None = None) -> None:
    """A mapping with a column of every type, `key` one of them, or the user's id."""
    names = {name: f"{kind} null" if name != key else kind for name, kind in TYPES.items()}
    columns = "".join(f"  {name}: {kind}\n" for name, kind in names.items())
    select = ", ".join(f'u."{name}"' for name in names)
    keyed = f"{{{key}: {key}}}" if key else "{id: projectUserId}"
    folder = project.directory / "mappings"
    folder.mkdir()
    (folder / "values.yaml").write_text(
        f"name: values\nsource: ProjectUser\ntarget: values\nkey: {keyed}\ncolumns:\n  id: uuid\n{columns}"
        f'select: |\n  SELECT u."projectUserId" AS id, {select}\n  FROM "ProjectUser" AS u\n'
        '  WHERE u."tenancyId" = :tenancy_id\n'
    )
    project.settings["mappings_dir"] = "mappings"


def configure(project: Project, kind: str, external_db: str) -> Pipeline:
    if kind == "postgres":
        project.postgres(MINE, external_db)
    elif kind == "sqlite":
        project.sqlite(MINE)
    else:
        pytest.importorskip("duckdb", reason="the extra stackctl[duckdb] is not installed")
        project.duckdb(MINE)
    return project.pipeline()


def kept(kind: str) -> dict[str, list[str]]:
    return {name: [*values, *SOME[kind].get(name, [])] for name, values in VALUES.items()}


def add_columns(source: Connection) -> None:
    for name, kind in TYPES.items():
        source.execute(f'ALTER TABLE "ProjectUser" ADD COLUMN {name} {CASTS.get(kind, kind)}'.encode())


def add(source: Connection, name: str, value: str | None) -> uuid.UUID:
    user = add_user(source)
    source.execute(f'UPDATE "ProjectUser" SET {name} = %s WHERE "projectUserId" = %s'.encode(), (value, user))
    return user


def verified(pipeline: Pipeline, *, repair: bool = False) -> verify.VerifyResult:
    (check,) = verify.verify(pipeline, service.Scope(None), Stop(), repair=repair)
    assert check.error is None, check.error
    return check


KINDS = pytest.mark.parametrize("kind", ["postgres", "sqlite", "duckdb"])


@KINDS
@pytest.mark.parametrize("name", TYPES)
def test_a_clean_copy_has_no_differences(
    kind: str, name: str, project: Project, source: Connection, external_db: str
) -> None:
    add_columns(source)
    mapping(project)
    values = [None, *kept(kind)[name]]
    for value in values[::2]:
        add(source, name, value)
    pipeline = configure(project, kind, external_db)
    sequence(pipeline)
    assert [result.error for result in sync(pipeline)] == [None]
    for value in values[1::2]:  # as a batch, after the load
        add(source, name, value)
    sequence(pipeline)
    assert [result.error for result in sync(pipeline)] == [None]
    check = verified(pipeline)
    assert (check.source_rows, check.target_rows, check.differences) == (len(values), len(values), 0)
    assert differences(pipeline) == []


@KINDS
@pytest.mark.parametrize("name", [name for name, kind in TYPES.items() if kind not in ("double", "json")])
def test_keys_of_every_type(kind: str, name: str, project: Project, source: Connection, external_db: str) -> None:
    """A key that is spelled in two ways would be missing here and extra there."""
    add_columns(source)
    mapping(project, key=name)
    equal = {"amount": {"1.0": "1", "1.00": "1", "1e2": "100", "0.00": "0", "-0.0": "0"}}.get(name, {})
    values = {equal.get(value, value): value for value in kept(kind)[name]}.values()
    for value in values:
        add(source, name, value)
    pipeline = configure(project, kind, external_db)
    sequence(pipeline)
    assert [result.error for result in sync(pipeline)] == [None]
    check = verified(pipeline)
    assert (check.source_rows, check.target_rows, check.differences) == (len(values), len(values), 0)


def test_a_key_whose_scale_is_the_copys_own(
    project: Project, source: Connection, external_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many zeros stand behind a number, it is one key, also when it is looked up without the other spelling."""
    add_columns(source)
    mapping(project, key="amount")
    for value in ("-1.50", "0.0", "100", "2.50"):
        add(source, "amount", value)
    pipeline = configure(project, "duckdb", external_db)
    sequence(pipeline)
    assert [result.error for result in sync(pipeline)] == [None]
    monkeypatch.setattr(comparison, "KEYS_AT_ONCE", 1)
    check = verified(pipeline)
    assert (check.source_rows, check.target_rows, check.differences, check.in_flight) == (4, 4, 0, 0)
    with no_capture(source, "ProjectUser"):
        source.execute('DELETE FROM "ProjectUser" WHERE amount = -1.5')
        source.execute('UPDATE "ProjectUser" SET note = %s WHERE amount = 0', ("missed",))
    check = verified(pipeline)
    assert (check.extra, check.different, check.missing, check.in_flight) == (1, 1, 0, 0)
    source.execute(
        'INSERT INTO "DeletedRow" (id, "tenancyId", "tableName", "primaryKey", "shouldUpdateSequenceId")'
        " VALUES (gen_random_uuid(), %s, 'ProjectUser', '{\"amount\": -1.50}', true)",
        (MINE,),
    )
    check = verified(pipeline, repair=True)
    assert (check.extra, check.different, check.repaired, check.in_flight) == (0, 1, 1, 1)
    source.execute('UPDATE "ProjectUser" SET day = %s WHERE amount = 2.5', ("0044-03-15 BC",))
    sequence(pipeline)
    sync(pipeline)
    assert verified(pipeline).rejected.keys() == {("2.5",)}


@pytest.mark.parametrize("kind", ["postgres", "sqlite", "duckdb"])
def test_settings_of_the_databases_do_not_show(
    kind: str, project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    add_columns(source)
    mapping(project)
    for name in VALUES:
        for value in kept(kind)[name]:
            add(source, name, value)
    pipeline = configure(project, kind, external_db)
    settings = {"DateStyle": "German, DMY", "TimeZone": "Asia/Tokyo", "extra_float_digits": "0", "xmloption": "content"}
    changed = [(source, source.info.dbname)]
    if kind == "postgres":
        target = connect(external_db, autocommit=True)
        changed = [(target, target.info.dbname)]
    for conn, database in changed:
        for name, value in settings.items():
            conn.execute(f"ALTER DATABASE {database} SET {name} = '{value}'".encode())
    sequence(pipeline)
    assert [result.error for result in sync(pipeline)] == [None]
    check = verified(pipeline)
    assert (check.source_rows, check.differences) == (check.target_rows, 0)
    assert differences(pipeline) == []


@pytest.mark.parametrize("kind", ["postgres", "duckdb"])
def test_not_a_number_is_not_null(kind: str, project: Project, source: Connection, external_db: str) -> None:
    add_columns(source)
    mapping(project)
    user = add(source, "ratio", "NaN")
    pipeline = configure(project, kind, external_db)
    sequence(pipeline)
    assert [result.error for result in sync(pipeline)] == [None]
    with no_capture(source, "ProjectUser"):  # the pipeline misses it
        source.execute('UPDATE "ProjectUser" SET ratio = NULL WHERE "projectUserId" = %s', (user,))
    check = verified(pipeline, repair=True)
    assert (check.different, check.repaired) == (1, 1)

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from stackctl.config.file import ConfigFile, load_config
from stackctl.core.errors import ConfigError
from stackctl.core.yaml_reader import Reader
from stackctl.mapping.document import read_document
from stackctl.rules.sample_users import load_users

if TYPE_CHECKING:
    from pathlib import Path

TENANCY = "6fbbf22e-f4b2-4c6e-95a1-beab6fa41063"


def parse(tmp_path: Path, text: str) -> ConfigFile:
    path = tmp_path / "stackctl.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def refused(tmp_path: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(tmp_path, text)
    assert caught.value.exit_code == 3
    assert str(tmp_path / "stackctl.yaml") in caught.value.message
    return caught.value


def database(body: str) -> str:
    return f"tenancies:\n  {TENANCY}:\n    external_databases:\n      a: {body}\n"


@pytest.mark.parametrize(
    ("text", "line", "key", "nearest"),
    [
        ("databse: {}\n", 1, "databse", "database"),
        ("version: 1\ndatabase:\n  urll: x\n", 3, "database.urll", "url"),
        ("\n\nsync: {batchsize: 3}\n", 3, "sync.batchsize", "batch_size"),
        ("payments:\n  telegram:\n    bot_tokn: x\n", 3, "payments.telegram.bot_tokn", "bot_token"),
        ("tenancy: {}\n", 1, "tenancy", "tenancies"),
        (f"tenancies:\n  {TENANCY}:\n    databases: {{}}\n", 3, f"tenancies.{TENANCY}.databases", "external_databases"),
        (database("{typ: sqlite}"), 4, f"tenancies.{TENANCY}.external_databases.a.typ", "type"),
    ],
)
def test_an_unknown_key_is_named_with_its_line_its_path_and_the_nearest(
    tmp_path: Path, text: str, line: int, key: str, nearest: str
) -> None:
    error = refused(tmp_path, text)
    assert error.code == "config-unknown-key"
    assert f"stackctl.yaml:{line}: {key}: " in error.message
    assert error.hint == f"did you mean `{nearest}`?"
    assert error.details == {"key": key, "nearest": nearest}


def test_a_key_like_no_other_lists_what_is_known(tmp_path: Path) -> None:
    assert "batch_size" in (refused(tmp_path, "sync: {zzzzzz: 1}").hint or "")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("migrations: {dir: ''}", "1: migrations.dir: an empty string is not a path"),
        ("sync:\n  workers: many\n", "2: sync.workers: expected a whole number"),
        ("sync: {workers: 0}", "1: sync.workers: expected at least 1"),
        ("sync: {workers: 1.5}", "1: sync.workers: expected a whole number"),
        ("sync: {workers: true}", "1: sync.workers: expected a whole number, got true"),
        ("sync: {workers: [1]}", "1: sync.workers: expected a whole number, got a list"),
        ("sync: {workers: " + "9" * 40 + "}", "1: sync.workers: expected a whole number"),
        ("sync: {poller_interval: 50}", "1: sync.poller_interval: '50' is not a duration"),
        ("sync: {poller_interval: 9999999999999d}", "1: sync.poller_interval: "),
        ("sync: {poller_interval: 200000d}", "1: sync.poller_interval: '200000d' is longer than anything waits"),
        ("sync: {wakeup: sometimes}", "1: sync.wakeup: expected one of poll, notify"),
        ("sync: {wakeup: {a: 1}}", "1: sync.wakeup: expected one of poll, notify; got a block of keys"),
        ("sync: 5", "1: sync: expected a block of keys"),
        ("sync: [batch_size]", "1: sync: expected a block of keys, got a list"),
        ("database: {schema: 5}", "1: database.schema: expected text, got 5"),
        ("database: {schema: yes}", "1: database.schema: expected text, got true"),
        ("database: {schema: 2024-13-45}", "1: database.schema: "),
        ("mappings_dir: {a: b}", "1: mappings_dir: expected text"),
        ("mappings_dir: ~nobody-of-that-name/x", "1: mappings_dir: "),
        ("tenancies: [a]", "1: tenancies: expected a block of keys"),
        ("tenancies:\n  nonsense: {}\n", "2: tenancies.nonsense: expected a tenancy's id"),
        (database("[]"), f"4: tenancies.{TENANCY}.external_databases.a: expected a block of keys, got a list"),
        (
            database("{type: sqlite}"),
            f"4: tenancies.{TENANCY}.external_databases.a: a database of type sqlite needs `path`",
        ),
        (database("{type: postgres, url: ''}"), "a database of type postgres needs `url`"),
        (database("{type: duckdb, url: b}"), "a database of type duckdb needs `path`"),
        (database("{type: sqlite, path: a.db, url: b}"), "a.url: a database of type sqlite has `path`, not `url`"),
        (database("{path: a.db}"), "`type` is missing"),
        (database("{type: oracle, url: x}"), "a.type: expected one of postgres, sqlite, duckdb"),
        (database("{type: '${T}', url: x}"), "a.type: expected one of postgres, sqlite, duckdb"),
        (database("{type: sqlite, path: a, mappings: users}"), "a.mappings: expected a list of names, got 'users'"),
        (database("{type: sqlite, path: a, mappings: '${M}'}"), "a.mappings: expected a list of names"),
        (database("{type: sqlite, path: a, mappings: [1]}"), "a.mappings: expected a list of names, got a list"),
        ("- version: 1\n", "1: expected a block of keys, got a list"),
        ("just text\n", "1: expected a block of keys, got a single value"),
        ("? [a, b]\n: 1\n", "1: a key must be plain text"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(tmp_path: Path, text: str, place: str) -> None:
    assert place in refused(tmp_path, text).message


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nversion: 1\n",
        "database: {schema: a}\ndatabase: {schema: b}\n",
        "sync: {workers: 1, workers: 2}\n",
        f"tenancies:\n  {TENANCY}: {{}}\n  {TENANCY.upper()}: {{}}\n",
    ],
)
def test_a_key_given_twice_is_refused(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text).code == "config-duplicate-key"


@pytest.mark.parametrize("version", ["2", "0", "'1'", "null", "[1]"])
def test_another_version_is_refused_before_its_keys_are_judged(tmp_path: Path, version: str) -> None:
    error = refused(tmp_path, f"key_of_version_two: x\nversion: {version}\n")
    assert error.code == "config-version"
    assert "stackctl.yaml:2: version" in error.message


@pytest.mark.parametrize("text", ["", "\n# only a comment\n", "---\n", "null\n", "version: 1\n", "\ufeffversion: 1\n"])
def test_an_empty_file_configures_nothing(tmp_path: Path, text: str) -> None:
    file = parse(tmp_path, text)
    assert (file.entries, file.tenancies) == ({}, {})


@pytest.mark.parametrize(
    "text",
    [
        "database: [\n",
        "a: b: c\n",
        "\tversion: 1\n",
        "version: 1\n---\nversion: 1\n",
        "a: *nothing\n",
        "x: \x00\n",
        "a: 'open\n",
    ],
)
def test_what_is_not_yaml(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text).code == "config-malformed"


def test_deep_nesting_is_not_a_bug(tmp_path: Path) -> None:
    assert refused(tmp_path, "sync: " + "[" * 5000).code == "config-malformed"


def test_anchors_aliases_and_merge_keys(tmp_path: Path) -> None:
    text = f"""
tenancies:
  {TENANCY}:
    external_databases: &both
      a: &base {{type: sqlite, path: a.db, mappings: &names [users]}}
      b: {{<<: *base, path: b.db}}
      c: {{<<: [*base], type: sqlite}}
  00000000-0000-4000-8000-000000000001:
    external_databases: *both
"""
    first, second = parse(tmp_path, text).tenancies.values()
    assert first.keys() == second.keys()
    assert second["c"]["path"].value == "a.db"
    assert {id_: entries["path"].value for id_, entries in first.items()} == {"a": "a.db", "b": "b.db", "c": "a.db"}
    assert first["b"]["mappings"].value == ["users"]


@pytest.mark.parametrize(
    "text", ["sync: &s {<<: *s}", "sync: &s [*s]", "mappings_dir: &s [*s]", "database: &d {url: *d}", "sync: {<<: 5}"]
)
def test_an_alias_of_itself_is_refused(tmp_path: Path, text: str) -> None:
    refused(tmp_path, text)


def test_aliases_that_would_grow_without_end_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a]"] + [
        f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 30)
    ]
    block = "{" + ", ".join(lines) + "}"
    assert len(refused(tmp_path, f"mappings_dir: {block}\n").message) < 500


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system [id]", "!secret x", "!!int x", "!!timestamp x", "!!bool x"]
)
def test_a_tag_that_is_not_plain_data_is_refused(tmp_path: Path, tag: str) -> None:
    error = refused(tmp_path, f"version: 1\nmappings_dir: {tag}\n")
    assert "stackctl.yaml:2" in error.message
    assert error.hint


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.write_bytes(b"version: \xff\n")])
def test_an_unreadable_file(tmp_path: Path, make: object) -> None:
    path = tmp_path / "stackctl.yaml"
    assert callable(make)
    make(path)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.code == "config-unreadable"
    assert str(path) in caught.value.message


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "gone.yaml")
    assert caught.value.code == "config-not-found"


@pytest.mark.parametrize(
    "text",
    [
        "payments: {stripe_api_key: [hunter2hunter2]}",
        "payments: {telegram: {bot_token: 31415926}}",
        "payments: hunter2hunter2",
        "database: {url: {password: hunter2hunter2}}",
        "database: {url: *hunter2hunter2}",
        "database: {url: !hunter2hunter2 x}",
        "database: {url: 'hunter2hunter2}",
        "payments: {stripe_api_key: @hunter2hunter2}",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_quoted(tmp_path: Path, text: str) -> None:
    import traceback

    with pytest.raises(ConfigError) as caught:
        parse(tmp_path, text)
    shown = "".join(traceback.format_exception(caught.value))
    own = [line for line in shown.splitlines() if "test_configfile" not in line]
    assert "hunter2" not in "\n".join(own)
    assert "31415926" not in caught.value.message


def test_a_chat_id_may_be_a_number(tmp_path: Path) -> None:
    assert (
        parse(tmp_path, "payments: {telegram: {chat_id: -100123}}").entries["payments.telegram.chat_id"].value
        == -100123
    )


def _bomb(seed: str, link: str) -> str:
    """A list of anchors, each of which is three times the one before."""
    again = "".join(f", &a{i} {link.format(', '.join([f'*a{i - 1}'] * 3))}" for i in range(1, 30))
    return f"[&a0 {seed}{again}]"


@pytest.mark.parametrize(
    "text",
    [
        "sync: {<<: " + _bomb("{batch_size: 1}", "{{<<: [{}]}}") + "}",
        "sync: {batch_size: " + _bomb("[x, x]", "[{}]") + "}",
        "tenancies: {<<: [&a {" + ", ".join(f"k{i}: 1" for i in range(1000)) + "}" + ", *a" * 1000 + "]}",
    ],
    ids=["merge", "list", "square"],
)
def test_aliases_unfold_within_bounds(text: str, tmp_path: Path) -> None:
    path = tmp_path / "stackctl.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="its aliases unfold to far more than is written") as caught:
        load_config(path)
    assert caught.value.code == "config-malformed"
    assert ["its aliases" in finding.message for finding in read_document(path).findings] == [True]
    with pytest.raises(ConfigError, match="its aliases unfold"):
        list(load_users(path))
    reader = Reader()
    assert reader.compose(text) is None
    assert "its aliases" in reader.mistakes[0][1]


def test_anchors_merge_in_every_block(tmp_path: Path) -> None:
    path = tmp_path / "stackctl.yaml"
    databases = "".join(f"      d{i}: {{<<: *base, path: ./{i}.db}}\n" for i in range(2000))
    path.write_text(
        f"tenancies:\n  {TENANCY}:\n    external_databases:\n      d: &base {{type: sqlite, path: ./x.db}}\n{databases}"
    )
    assert len(load_config(path).tenancies[UUID(TENANCY)]) == 2001

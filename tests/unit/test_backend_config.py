"""What a tenancy's configuration says of its external databases, in whichever spelling; and what it may not say."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from stackctl.backend.external_databases import parse_databases
from stackctl.backend.tenancies import merge_config
from stackctl.config.settings import ExternalDatabase, Settings
from stackctl.core.errors import StackctlError
from stackctl.core.redaction import scrub

TENANCY = uuid.UUID(int=0xA)
URL = "postgresql://app:pa55word@db.example.com/analytics"
ENTRY = {"type": "postgres", "connectionString": URL}


def read(config: Any) -> list[ExternalDatabase]:
    return parse_databases(TENANCY, json.dumps(config))


def problem(config: Any) -> str:
    (found,) = read(config)
    with pytest.raises(StackctlError) as caught:
        Settings(environ={}).resolve_database(found)
    return caught.value.message


def of(**entry: Any) -> dict[str, Any]:
    return {"dbSync": {"externalDatabases": {"analytics": entry}}}


@pytest.mark.parametrize(
    "config",
    [
        {"dbSync": {"externalDatabases": {"analytics": ENTRY}}},
        {"dbSync.externalDatabases": {"analytics": ENTRY}},
        {"dbSync": {"externalDatabases.analytics": ENTRY}},
        {
            "dbSync": {
                "externalDatabases.analytics.type": "postgres",
                "externalDatabases.analytics.connectionString": URL,
            }
        },
        {"dbSync.externalDatabases.analytics": ENTRY},
        {
            "dbSync.externalDatabases.analytics.type": "postgres",
            "dbSync.externalDatabases.analytics.connectionString": URL,
        },
        {
            "dbSync": {"externalDatabases": {"analytics": {"type": "postgres"}}},
            "dbSync.externalDatabases.analytics.connectionString": URL,
        },
        {"dbSync": {"externalDatabases": {"analytics": ENTRY, "old": None}}, "dbSync.other": True},
    ],
)
def test_every_spelling_of_one_database(config: Any) -> None:
    (found,) = read(config)
    assert (found.tenancy, found.id, found.type, found.url, found.problem) == (
        TENANCY, "analytics", "postgres", URL, None,
    )  # fmt: skip


def test_the_more_specific_path_wins_and_replaces_what_stands_there() -> None:
    config = {
        "a.b.c": 3,
        "a": {"b": {"c": 1, "d": 1}, "e": 1},
        "a.b": {"c": 2},
        "x": 1,
        "x.y": 2,
    }
    assert merge_config(config) == {"a": {"b": {"c": 3}, "e": 1}, "x": 1}


def test_a_null_takes_away() -> None:
    assert (
        read({"dbSync": {"externalDatabases": {"analytics": ENTRY}}, "dbSync.externalDatabases.analytics": None}) == []
    )
    assert read({"dbSync": None}) == []
    assert read({"dbSync": {}}) == []


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (of(type="mysql", connectionString="mysql://app:pa55word@h/d"), "type that is not supported"),
        (of(connectionString=URL), "has no type"),
        (of(type="postgres"), "no connectionString"),
        (of(type="postgres", connectionString=5), "no connectionString"),
        (of(type="postgres", connectionString={"pa55word": 1}), "no connectionString"),
        (of(type="postgres", connectionString=" "), "no connectionString"),
        (of(type="postgres", connectionString="what pa55word"), "none of PostgreSQL's"),
        (of(type="postgres", connectionString="postgresql://a:pa55word@x@h/d"), "%40"),
        (of(type="postgres", connectionString="embedded:/srv/operators"), "none of PostgreSQL's"),
        (of(type="postgres", connectionString="postgresql:///d"), "names no host"),
        (of(type="postgres", connectionString="postgresql://h/d?passfile=/home/ada/.pgpass"), "not allowed: passfile"),
        (of(type="postgres", connectionString="service=production host=h"), "not allowed: service"),
        (of(type="postgres", connectionString="postgresql://h/d?sslkey=/home/ada/key"), "not allowed: sslkey"),
        ({"dbSync": {"externalDatabases": {"analytics": "pa55word"}}}, "is not an object"),
        ({"dbSync": {"externalDatabases": ["pa55word"]}}, "dbSync.externalDatabases is not an object"),
        ({"dbSync": "pa55word"}, "is not an object"),
    ],
)
def test_what_is_wrong_is_the_error_of_that_database_and_tells_no_secret(config: Any, says: str) -> None:
    message = problem(config)
    assert says in message
    assert "pa55word" not in message


def test_one_broken_entry_leaves_the_others() -> None:
    found = {d.id: d.problem for d in read({"dbSync": {"externalDatabases": {"good": ENTRY, "bad": {}}}})}
    assert found["good"] is None
    assert found["bad"] is not None


def test_nothing_is_filled_in_from_the_operators_environment() -> None:
    (found,) = read(of(type="postgres", connectionString="postgresql://h/d?application_name=${STRIPE_API_KEY}"))
    resolved = Settings(environ={"STRIPE_API_KEY": "sk_live_x"}).resolve_database(found)
    assert resolved.url == "postgresql://h/d?application_name=${STRIPE_API_KEY}"


def test_the_password_is_never_in_what_is_shown_and_masks_nothing_elsewhere() -> None:
    (found,) = read(of(type="postgres", connectionString="postgresql://app:s3cretvalue@h/d"))
    assert "s3cretvalue" not in repr(found) + found.connection
    read(of(type="postgres", connectionString="postgresql://app:external%20database@h/d"))
    assert scrub("the external database s3cretvalue") == "the external database s3cretvalue"


def test_deep_nesting_is_the_tenancys_own_trouble() -> None:
    text = '{"dbSync": ' + '{"a": ' * 200_000 + "1" + "}" * 200_000 + "}"
    (found,) = parse_databases(TENANCY, text)
    assert found.problem is not None

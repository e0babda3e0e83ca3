"""What the environment may add to a connection string, and which addresses one that a tenancy wrote may lead to."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from psycopg import pq

from stackctl.core.errors import ConfigError, ServiceError
from stackctl.postgres import libpq
from stackctl.postgres.addresses import pin_addresses
from stackctl.postgres.libpq import fill_from_environment

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def nothing_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libpq, "_taken", {})
    libpq.read_service.cache_clear()


WHERE = {"PGHOST": "trap", "PGHOSTADDR": "203.0.113.9", "PGPORT": "6666", "PGDATABASE": "trap"}
HOW = {"PGPASSWORD": "pw", "PGSSLMODE": "require", "PGOPTIONS": "-c x=1"}


def setenv(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("said", [{"host": "db"}, {"hostaddr": "198.51.100.1"}])
def test_where_a_string_says_it_the_environment_does_not(monkeypatch: pytest.MonkeyPatch, said: dict[str, str]) -> None:
    setenv(monkeypatch, WHERE | HOW | {"PGSERVICE": "trap"})
    assert fill_from_environment(said) == said | {"password": "pw", "sslmode": "require", "options": "-c x=1"}


def test_where_a_string_says_nothing_the_environment_does(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, {"PGHOST": "db", "PGPORT": "6000", "PGUSER": "me"})
    assert fill_from_environment({"dbname": "mine"}) == {"dbname": "mine", "host": "db", "port": "6000", "user": "me"}


@pytest.mark.parametrize("by_string", [True, False])
def test_a_service_beats_the_variables_as_with_psql(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by_string: bool
) -> None:
    (tmp_path / "services").write_text("[shop]\nhost=db\nport=6001\nsslmode=verify-full\n")
    setenv(monkeypatch, HOW | {"PGSERVICEFILE": str(tmp_path / "services")})
    if not by_string:
        monkeypatch.setenv("PGSERVICE", "shop")
    found = fill_from_environment({"service": "shop"} if by_string else {"dbname": "mine"})
    expected = {"service": "shop", "host": "db", "port": "6001", "sslmode": "verify-full", "password": "pw"}
    assert {name: found.get(name) for name in expected} == expected


def test_a_service_that_says_what_libpq_would_say_anyway_says_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "services").write_text(
        "# all\n[other]\nhost=no\n\n[shop]\nport=5432\n  user=root\nsslmode=prefer\n[shop]\nport=1"
    )
    variables = {"PGPORT": "7803", "PGUSER": "evil", "PGSSLMODE": "disable", "PGDATABASE": "mine"}
    setenv(monkeypatch, variables | {"PGSERVICE": "shop", "PGSERVICEFILE": str(tmp_path / "services")})
    found = fill_from_environment({})
    expected = {"port": "5432", "user": "root", "sslmode": "prefer", "dbname": "mine", "service": "shop"}
    assert found == expected


def test_a_service_named_by_the_string_is_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "services").write_text("[shop]\nhost=db\n")
    setenv(monkeypatch, WHERE | {"PGSERVICEFILE": str(tmp_path / "services")})
    found = fill_from_environment({"service": "shop"})
    assert (found["host"], found.get("hostaddr"), found.get("port"), found.get("dbname")) == ("db", None, None, None)


def test_libpq_itself_sees_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, WHERE | HOW | {"PGSERVICE": "trap", "PGTZ": "Nowhere", "PGDATESTYLE": "x", "PGGEQO": "x"})
    fill_from_environment({})
    assert [one.keyword for one in pq.Conninfo.get_defaults() if one.val == b"trap"] == []
    assert not any(f"PG{name}" in libpq.os.environ for name in ("HOST", "SERVICE", "TZ", "DATESTYLE", "GEQO"))


# -- addresses


@pytest.mark.parametrize(
    "said",
    [
        {"host": "/var/run/postgresql"}, {"host": "@abstract"}, {"host": "198.51.100.1,"}, {"host": ",198.51.100.1"},
        {"host": "localhost"}, {"host": "127.0.0.1"}, {"host": "127.1"}, {"host": "0x7f000001"}, {"host": "2130706433"},
        {"host": "198.51.100.1,localhost"}, {"host": "0.0.0.0"}, {"host": "::"}, {"host": "::1"},
        {"host": "::ffff:127.0.0.1"}, {"host": "::ffff:7f00:1"}, {"host": "64:ff9b::7f00:1"}, {"host": "2002:7f00:1::"},
        {"host": "169.254.169.254"}, {"host": "64:ff9b:1::7f00:1"}, {"host": "::ffff:0:127.0.0.1"},
        {"host": "0.0.0.1"}, {"host": "fd00:ec2::254"}, {"host": "::ffff:169.254.169.254"},
        {"host": "fe80::1"}, {"host": "224.0.0.1"},
        {"host": "db.example.com", "hostaddr": "127.0.0.1"}, {"hostaddr": "127.1"}, {"hostaddr": "198.51.100.1,::1"},
        {"host": "a,b", "hostaddr": "198.51.100.1"}, {"host": "198.51.100.1,198.51.100.2", "port": "1,2,3"},
        {"port": "5432"},
        {},
    ],
)  # fmt: skip
def test_a_tenancy_reaches_no_address_of_this_machine_or_its_link(said: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        pin_addresses(said, "it")
    assert caught.value.code == "local-address"


def test_what_was_checked_is_what_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([["198.51.100.1", "2001:db8::1"], ["127.0.0.1"]])

    def rebinding(*asked: object, **options: object) -> list[object]:
        return [(0, 0, 0, "", (address, 0)) for address in next(answers)]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    pinned = pin_addresses({"host": "db.example.com", "port": "5433", "sslmode": "verify-full"}, "it")
    assert pinned == {
        "host": "db.example.com,db.example.com",
        "hostaddr": "198.51.100.1,2001:db8::1",
        "port": "5433,5433",
        "sslmode": "verify-full",
    }


def test_several_hosts_keep_their_ports() -> None:
    pinned = pin_addresses({"host": "198.51.100.1,198.51.100.2", "port": "1,2"}, "it")
    assert (pinned["host"], pinned["hostaddr"], pinned["port"]) == (
        "198.51.100.1,198.51.100.2",
        "198.51.100.1,198.51.100.2",
        "1,2",
    )


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(ServiceError) as caught:
        pin_addresses({"host": "nobody.invalid"}, "it")
    assert caught.value.code == "unreachable"

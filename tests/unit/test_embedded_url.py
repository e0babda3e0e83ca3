"""The URLs of the embedded server."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackctl.core.errors import ConfigError
from stackctl.postgres.embedded_url import EmbeddedUrl, parse_embedded_url


@pytest.mark.parametrize(
    ("url", "directory", "dbname"),
    [
        ("embedded", "/data/stackctl/postgres", "postgres"),
        ("embedded?dbname=app", "/data/stackctl/postgres", "app"),
        ("embedded:pg", "/base/pg", "postgres"),
        ("embedded:pg?dbname=my%20app", "/base/pg", "my app"),
        ("embedded:/srv/pg?dbname=app", "/srv/pg", "app"),
        ("embedded:~/pg", "/home/ann/pg", "postgres"),
    ],
)
def test_url(monkeypatch: pytest.MonkeyPatch, url: str, directory: str, dbname: str) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("HOME", "/home/ann")
    assert parse_embedded_url(url, Path("/base")) == EmbeddedUrl(Path(directory), dbname)


def test_url_of_a_server_that_is_kept() -> None:
    assert parse_embedded_url("embedded:/pg?keep=2m&dbname=app", Path("/base")) == EmbeddedUrl(Path("/pg"), "app", 120)


def test_url_without_a_usable_data_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    parsed = parse_embedded_url("embedded", Path("/base"))
    assert parsed is not None
    assert parsed.directory == Path("/home/ann/.local/share/stackctl/postgres")


@pytest.mark.parametrize("url", ["postgresql:///x", "", "Embedded", "embeddedness", "embedded-pg:x", " embedded"])
def test_url_of_something_else(url: str) -> None:
    assert parse_embedded_url(url, Path("/base")) is None


@pytest.mark.parametrize(
    "url",
    [
        "embedded:",
        "embedded://host/db",
        "embedded:?dbname=x",
        "embedded:pg?",
        "embedded:pg?dbname=",
        "embedded:pg?dbname=a&dbname=b",
        "embedded:pg?database=x",
        "embedded:pg?keep=soon",
        f"embedded:pg?dbname={'x' * 64}",
    ],
)
def test_malformed_url(url: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        parse_embedded_url(url, Path("/base"))
    assert wrong.value.code == "embedded-url"

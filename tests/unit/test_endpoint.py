"""What an answer of the endpoint means for the entry, and which URLs are none."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from stackctl.core.errors import ConfigError
from stackctl.sync.dispatch.connections import Answer
from stackctl.sync.dispatch.endpoint import LONGEST_WAIT, check_endpoint, judge, parse_retry_after

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
URL = "https://sync.example.com/sync-engine?key=secret"


def fate(status: int, **headers: str) -> str:
    """What becomes of an entry, in words."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    verdict = judge(Answer(status, named, b""), URL)
    if verdict.error is None:
        return "done"
    assert "secret" not in verdict.error.message
    kind = "planned" if verdict.planned else "dead" if verdict.dead else "busy" if verdict.busy else "again"
    return f"{kind} {verdict.wait.total_seconds():g}" if verdict.wait else kind


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (200, {}, "done"),
        (204, {}, "done"),
        (200, {"content_type": "application/json; charset=utf-8"}, "done"),
        (200, {"content_type": "Text/HTML; charset=utf-8"}, "again"),
        (302, {"location": "https://elsewhere"}, "again"),
        (400, {}, "dead"),
        (401, {}, "dead"),
        (403, {"content_type": "text/html"}, "dead"),
        (404, {}, "dead"),
        (413, {"retry_after": "5"}, "dead"),
        (489, {}, "dead"),
        (408, {}, "again"),
        (409, {}, "again"),
        (425, {}, "again"),
        (429, {}, "again"),
        (500, {}, "again"),
        (502, {"content_type": "text/html"}, "again"),
        (503, {}, "again"),
        (429, {"retry_after": "2"}, "busy 2"),
        (503, {"retry_after": "10"}, "busy 10"),
        (503, {"retry_after": "11"}, "again 11"),
        (500, {"retry_after": "2"}, "again 2"),
        (500, {"stackctl_retry": "planned"}, "planned"),
        (489, {"stackctl_retry": "planned"}, "planned"),
        (200, {"stackctl_retry": "planned"}, "done"),
    ],
)
def test_an_answer(status: int, headers: dict[str, str], expected: str) -> None:
    assert fate(status, **headers) == expected


def test_the_reason_is_told_if_it_is_given_as_we_do() -> None:
    def said(body: bytes, kind: str = "application/json") -> str:
        error = judge(Answer(401, {"content-type": kind}, body), URL).error
        assert error is not None
        return error.message

    place = "the endpoint https://sync.example.com/sync-engine answers 401"
    assert said(json.dumps({"error": {"message": "no"}}).encode()) == f"{place}: no"
    for odd in (b"", b"[]", b"{}", b"[" * 60_000, b'{"error": {"message": 5}}', b"\xff"):
        assert said(odd) == place
    assert said(b'{"error": {"message": "no"}}', "text/html") == place


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120),
        (" 0 ", 0),
        ("1.5", 1.5),
        ("6m5s", 365),
        ("Sat, 28 Nov 2026 12:01:00 GMT", 60),
        ("Sat, 28 Nov 2026 11:00:00 GMT", 0),
        ("999999999", LONGEST_WAIT.total_seconds()),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("9" * 400, None),
        ("Sat, 99 Nov 2026 12:01:00 GMT", None),
    ],
)
def test_when_to_come_again(value: str | None, seconds: float | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert parse_retry_after(value, NOW) == expected


@pytest.mark.parametrize(
    "url",
    ["sync.example.com", "ftp://a/b", "https://", "https:///x", "https://u:p@a/b", "https://u@a/b", "https://a/b#c",
     "https://a:99999/b", "https://a:x/b", "https://[::1/b", "https://a/b c", "https://ä/b"],
)  # fmt: skip
def test_what_is_no_endpoint(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_endpoint(url, "stackctl.yaml:3: sync.endpoint")
    assert "u:p" not in refused.value.message


@pytest.mark.parametrize(
    "url", ["https://a/b", "http://127.0.0.1:8787/sync-engine", "https://[::1]:1/x?y=z", "https://a"]
)
def test_an_endpoint(url: str) -> None:
    check_endpoint(url, "here")

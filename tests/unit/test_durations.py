from __future__ import annotations

from datetime import timedelta

import pytest

from stackctl.core.durations import format_duration, parse_duration, parse_wait


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("50ms", 0.05),
        ("30s", 30),
        ("3m", 180),
        ("1h", 3600),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1w2d", 777600),
        ("1.5s", 1.5),
        (" 5S ", 5),
    ],
)
def test_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "50", "-1s", "1 s", "s", "1y", "1s,2s", "nan", "1e3s", "99999999999999d", "9" * 400 + "s"]
)
def test_anything_else_is_a_value_error_that_quotes_it(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.84, "840 ms"),
        (0.9999, "1.0 s"),
        (59.99, "1m 00s"),
        (250, "4m 10s"),
        (3599.7, "1h 00m"),
        (11520, "3h 12m"),
        (187200, "2d 4h"),
    ],
)
def test_at_most_two_units_and_no_sixty_of_any(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_wait_is_at_most_what_31_bits_of_milliseconds_hold() -> None:
    assert parse_wait("24d") == timedelta(days=24)
    with pytest.raises(ValueError, match="'577h' is longer than anything waits: 24d"):
        parse_wait("577h")

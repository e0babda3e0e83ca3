"""Durations as people write them: `50ms`, `30s`, `3m`, `1h`, `2d`, `1w`."""

from __future__ import annotations

import re
from datetime import timedelta

LONGEST_WAIT = timedelta(days=24)  # servers and poll() count milliseconds in 31 bits

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


def parse_duration(text: str) -> timedelta:
    """`1h30m` as a timedelta; raises ValueError, whose message says what is expected."""
    compact = text.strip().lower()
    if not compact or _DURATION.sub("", compact):
        raise ValueError(f"{text!r} is not a duration; write 50ms, 30s, 3m, 1h, 2d or 1w")
    try:
        return timedelta(seconds=sum(float(n) * _UNITS[unit] for n, unit in _DURATION.findall(compact)))
    except OverflowError:
        raise ValueError(f"{text!r} is longer than a duration can be") from None


def parse_wait(text: str) -> timedelta:
    """A duration that somebody waits for; ValueError for more than LONGEST_WAIT, too."""
    found = parse_duration(text)
    if found > LONGEST_WAIT:
        raise ValueError(f"{text!r} is longer than anything waits: {LONGEST_WAIT.days}d at the most")
    return found


def format_duration(seconds: float) -> str:
    """A duration for people, in at most two units: `840 ms`, `12.3 s`, `4m 10s`, `3h 12m`, `2d 4h`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def format_age(seconds: float) -> str:
    """How long ago, in one unit: `12 s ago`, `4 min ago`, `3 h ago`, `2 d ago`; what is to come `in 5 min`."""
    size = abs(seconds)
    unit, length = next((one for one in (("d", 86400), ("h", 3600), ("min", 60)) if size >= one[1]), ("s", 1))
    number = int(size // length)
    return f"{number} {unit} ago" if seconds >= 0 else f"in {number} {unit}"

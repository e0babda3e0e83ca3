"""Amounts of money: whole numbers of a currency's smallest unit, as Stripe counts, and decimal strings for people."""

from __future__ import annotations

import re
from decimal import Decimal

from stackctl.core.errors import UsageError

# Those that Stripe does not count in hundredths (Stripe, "Supported currencies"; it counts ISK and UGX in hundredths).
_WITHOUT_DECIMALS = (
    "bif",
    "clp",
    "djf",
    "gnf",
    "jpy",
    "kmf",
    "krw",
    "mga",
    "pyg",
    "rwf",
    "vnd",
    "vuv",
    "xaf",
    "xof",
    "xpf",
)
_THOUSANDTHS = ("bhd", "jod", "kwd", "omr", "tnd")
_AMOUNT = re.compile(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,2})?")
_FAULTS = (
    (re.compile(r"-.*"), "is below zero"),
    (re.compile(r"0[0-9]+(\.[0-9]*)?"), "has zeros in front"),
    (re.compile(r"[0-9]+\.[0-9]{3,}"), "has more than two decimals"),
    (re.compile(r"[0-9]+,[0-9]+"), "has a comma, where a point is meant"),
    (re.compile(r"[0-9]{13,}(\.[0-9]*)?"), "is more than Stripe can charge"),
)


def parse_cents(text: str) -> int:
    """`19.99` as 1999. Raises UsageError `schema-error`."""
    if _AMOUNT.fullmatch(text) is None:
        fault = next((fault for pattern, fault in _FAULTS if pattern.fullmatch(text)), "is not an amount of US dollars")
        raise UsageError(
            f"{text[:40]!r} {fault}", code="schema-error", hint="write dollars and cents as in 5, 0.50 or 19.99"
        )
    return int(Decimal(text) * 100)


def format_decimal(amount: int, currency: str = "usd") -> str:
    """1999 as `19.99`; 500 as `500` in a currency that has no smaller unit."""
    places = 0 if currency.lower() in _WITHOUT_DECIMALS else 3 if currency.lower() in _THOUSANDTHS else 2
    return f"{Decimal(amount).scaleb(-places):.{places}f}"


def format_money(amount: int, currency: str) -> str:
    """`19.99 USD`."""
    return f"{format_decimal(amount, currency)} {currency.upper()}"

"""Amounts: what people write, in cents; what Stripe counts, for people."""

from __future__ import annotations

import pytest

from stackctl.core.errors import UsageError
from stackctl.payments.money import format_decimal, format_money, parse_cents


@pytest.mark.parametrize(
    ("text", "amount"),
    [("19.99", 1999), ("5000", 500_000), ("0.5", 50), ("0.07", 7), ("0", 0), ("1.10", 110), ("1.1", 110),
     ("999999999999.99", 99_999_999_999_999), ("4.35", 435), ("1.00", 100)],
)  # fmt: skip
def test_cents(text: str, amount: int) -> None:
    assert parse_cents(text) == amount


@pytest.mark.parametrize(
    ("text", "says"),
    [("12.345", "more than two decimals"), ("-1", "below zero"), ("1e3", "not an amount"), ("$5", "not an amount"),
     ("5,00", "comma"), ("05", "zeros in front"), ("00", "zeros in front"), ("", "not an amount"),
     (" 5", "not an amount"), ("5 ", "not an amount"), ("5\n", "not an amount"), ("5.", "not an amount"),
     (".5", "not an amount"), ("NaN", "not an amount"), ("inf", "not an amount"), ("٣", "not an amount"),
     ("1_000", "not an amount"), ("+5", "not an amount"), ("9" * 5000, "more than Stripe can charge")],
)  # fmt: skip
def test_what_is_no_amount(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse_cents(text)
    assert (caught.value.code, len(caught.value.message) < 120) == ("schema-error", True)


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(1999, "usd", "19.99 USD"), (5, "usd", "0.05 USD"), (500, "jpy", "500 JPY"), (0, "jpy", "0 JPY"),
     (5124, "kwd", "5.124 KWD"), (500, "isk", "5.00 ISK"), (10**20, "usd", "1" + "0" * 18 + ".00 USD")],
)  # fmt: skip
def test_by_the_currencys_own_decimals(amount: int, currency: str, text: str) -> None:
    assert format_money(amount, currency) == text


def test_there_and_back() -> None:
    assert all(parse_cents(format_decimal(amount)) == amount for amount in range(100_000))

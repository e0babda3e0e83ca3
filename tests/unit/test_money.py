"""Amounts: what people write, in what Stripe counts; what Stripe counts, for people."""

from __future__ import annotations

import pytest

from stackctl.core.errors import UsageError
from stackctl.payments.money import format_decimal, format_money, is_known_currency, parse_amount


@pytest.mark.parametrize(
    ("text", "currency", "amount"),
    [("19.99", "usd", 1999), ("5000", "usd", 500_000), ("0.5", "usd", 50), ("0.07", "usd", 7), ("0", "usd", 0),
     ("1.1", "usd", 110), ("999999999999.99", "usd", 99_999_999_999_999), ("4.35", "usd", 435), ("1.00", "usd", 100),
     ("1.000", "usd", 100), ("500", "jpy", 500), ("500.00", "jpy", 500), ("5.12", "kwd", 5120), ("5.120", "kwd", 5120),
     ("5", "isk", 500), ("5.00", "ugx", 500), ("10.45", "huf", 1045), ("10.45", "twd", 1045)],
)  # fmt: skip
def test_in_what_stripe_counts(text: str, currency: str, amount: int) -> None:
    assert parse_amount(text).to_units(currency, 10**12) == amount


@pytest.mark.parametrize(
    ("text", "paid", "currency", "amount"),
    [("50%", 1999, "usd", 999), ("100%", 1999, "usd", 1999), ("0.01%", 1999, "usd", 0), ("33.33%", 10_000, "usd", 3333),
     ("50%", 501, "jpy", 250), ("50%", 5130, "kwd", 2560), ("50%", 700, "isk", 300), ("7.5%", 500_000, "eur", 37_500)],
)  # fmt: skip
def test_a_percentage_of_what_was_paid_is_rounded_down(text: str, paid: int, currency: str, amount: int) -> None:
    assert parse_amount(text).to_units(currency, paid) == amount


@pytest.mark.parametrize(
    ("text", "says"),
    [("12.3456", "more than three decimals"), ("-1", "below zero"), ("1e3", "not an amount"), ("$5", "not an amount"),
     ("5,00", "comma"), ("05", "zeros in front"), ("00", "zeros in front"), ("", "not an amount"),
     (" 5", "not an amount"), ("5 ", "not an amount"), ("5\n", "not an amount"), ("5.", "not an amount"),
     (".5", "not an amount"), ("NaN", "not an amount"), ("inf", "not an amount"), ("٣", "not an amount"),
     ("1_000", "not an amount"), ("+5", "not an amount"), ("9" * 5000, "more than Stripe can charge"),
     ("0%", "no percentage"), ("101%", "no percentage"), ("-5%", "below zero"), ("12.345%", "no percentage"),
     ("%", "no percentage"), ("5 %", "no percentage"), ("1e1%", "no percentage"), ("50%%", "no percentage")],
)  # fmt: skip
def test_what_is_no_amount(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse_amount(text)
    assert (caught.value.code, len(caught.value.message) < 120) == ("schema-error", True)


@pytest.mark.parametrize(
    ("text", "currency", "says"),
    [("12.345", "usd", "more than two decimals"), ("0.5", "jpy", "has decimals"), ("5.124", "kwd", "last of its three"),
     ("5.50", "isk", "no hundredths"), ("5.01", "ugx", "no hundredths"), ("1.001", "huf", "more than two decimals")],
)  # fmt: skip
def test_what_is_no_amount_of_a_currency(text: str, currency: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse_amount(text).to_units(currency, 10**12)
    assert (caught.value.code, currency.upper() in caught.value.message) == ("schema-error", True)
    hint = str(caught.value.hint).split()[-1]
    assert parse_amount(hint).to_units(currency, 10**12), "what is advised can be asked"


def test_the_same_amount_is_written_alike() -> None:
    assert [str(parse_amount(text)) for text in ("5", "5.00", "50%", "50.00%", "100", "0.50", "0")] == [
        "5", "5", "50%", "50%", "100", "0.5", "0",
    ]  # fmt: skip


def test_currencies_that_are_known() -> None:
    assert all(map(is_known_currency, ("usd", "jpy", "kwd", "isk", "zmw", "try")))
    assert not any(map(is_known_currency, ("xts", "USD", "", "btc")))


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(1999, "usd", "19.99 USD"), (5, "usd", "0.05 USD"), (500, "jpy", "500 JPY"), (0, "jpy", "0 JPY"),
     (5124, "kwd", "5.124 KWD"), (500, "isk", "5.00 ISK"), (10**20, "usd", "1" + "0" * 18 + ".00 USD")],
)  # fmt: skip
def test_by_the_currencys_own_decimals(amount: int, currency: str, text: str) -> None:
    assert format_money(amount, currency) == text


def test_there_and_back() -> None:
    for currency in ("usd", "jpy"):
        units = (parse_amount(format_decimal(amount, currency)).to_units(currency, 0) for amount in range(50_000))
        assert all(amount == expected for expected, amount in enumerate(units))

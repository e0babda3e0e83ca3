"""Amounts of money: whole numbers of a currency's smallest unit, as Stripe counts, and decimal strings for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from stackctl.core.errors import UsageError

# Stripe, "Supported currencies": those that can be charged.
_CURRENCIES = frozenset(re.findall(
    "[a-z]+",
    """
    aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd cad cdf chf clp
    cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl hrk htg huf idr ils
    inr isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk
    mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek sgd shp
    sle sll sos srd std szl thb tjs tnd top try ttd twd tzs uah ugx usd uyu uzs vnd vuv wst xaf xcd xcg xof xpf yer
    zar zmw
    """,
))  # fmt: skip
# Those that Stripe does not count in hundredths. HUF and TWD it does: only payouts are of whole ones.
_WITHOUT_DECIMALS = (
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf",
)  # fmt: skip
_THOUSANDTHS = ("bhd", "jod", "kwd", "omr", "tnd")
# What an amount has to be a multiple of: the last of three decimals is 0, and of ISK and UGX there are no hundredths,
# though Stripe counts them.
_STEPS = dict.fromkeys(_THOUSANDTHS, 10) | {"isk": 100, "ugx": 100}
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,3})?")
_PERCENT = re.compile(r"(0|[1-9][0-9]{0,2})(\.[0-9]{1,2})?%")
_FAULTS = (
    (re.compile(r"-.*"), "is below zero"),
    (re.compile(r"0[0-9]+(\.[0-9]*)?"), "has zeros in front"),
    (re.compile(r"[0-9]+\.[0-9]{4,}"), "has more than three decimals"),
    (re.compile(r"[0-9]+,[0-9]+"), "has a comma, where a point is meant"),
    (re.compile(r"[0-9]{13,}(\.[0-9]*)?"), "is more than Stripe can charge"),
    (re.compile(r".*%"), "is no percentage: from 0.01% to 100%"),
)


@dataclass(frozen=True)
class AskedAmount:
    """An amount as people write it, before its currency is known. `is_percent`: of what was paid."""

    number: Decimal
    is_percent: bool = False

    def __str__(self) -> str:
        return f"{self.number.normalize():f}{'%' if self.is_percent else ''}"

    def to_units(self, currency: str, paid: int) -> int:
        """In the smallest unit of the payment's currency; a percentage is rounded down to what Stripe can refund.

        Raises UsageError `schema-error` for a part of a unit.
        """
        step = _STEPS.get(currency, 1)
        if self.is_percent:
            return int(paid * self.number / 100) // step * step
        units = self.number.scaleb(count_decimals(currency))
        below = int(units) // step * step
        nearest = format_decimal(below or step, currency)
        hint = f"the nearest below is {nearest}" if below else f"the least is {nearest}"
        if units != int(units):
            places = ("decimals", "", "more than two decimals", "more than three decimals")[count_decimals(currency)]
            raise UsageError(
                f"{str(self)!r} has {places}, and the payment is in {currency.upper()}",
                code="schema-error",
                hint=hint,
            )
        if int(units) % step:
            raise UsageError(
                f"{str(self)!r} can't be paid in {currency.upper()}: "
                + ("it has no hundredths" if step == 100 else "the last of its three decimals is 0"),
                code="schema-error",
                hint=hint,
            )
        return int(units)


def parse_amount(text: str) -> AskedAmount:
    """`19.99`, or `50%` of what was paid. Raises UsageError `schema-error`."""
    if _PERCENT.fullmatch(text) and 0 < (percent := Decimal(text[:-1])) <= 100:
        return AskedAmount(percent, is_percent=True)
    if _NUMBER.fullmatch(text) is None:
        fault = next((fault for pattern, fault in _FAULTS if pattern.fullmatch(text)), "is not an amount of money")
        raise UsageError(
            f"{text[:40]!r} {fault}", code="schema-error", hint="write it as in 5, 0.50 or 19.99, or as 50%"
        )
    return AskedAmount(Decimal(text))


def is_known_currency(currency: str) -> bool:
    """Whether it is sure how Stripe counts it."""
    return currency in _CURRENCIES


def count_decimals(currency: str) -> int:
    return 0 if currency in _WITHOUT_DECIMALS else 3 if currency in _THOUSANDTHS else 2


def format_decimal(amount: int, currency: str = "usd") -> str:
    """1999 as `19.99`; 500 as `500` in a currency that has no smaller unit."""
    places = count_decimals(currency.lower())
    return f"{Decimal(amount).scaleb(-places):.{places}f}"


def format_money(amount: int, currency: str) -> str:
    """`19.99 USD`."""
    return f"{format_decimal(amount, currency)} {currency.upper()}"

"""Refunds that a CSV file asks for, a row each."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.core.csv_rows import RowError, decode_text, read_rows
from stackctl.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackctl.payments.purchases import Purchase
    from stackctl.payments.refunds.request import RefundRequest

COLUMNS = ("purchase", "amount", "quantity", "invoice", "tenancy", "reason", "note", "request_id")
REQUIRED = ("purchase", "amount")
REASONS = ("duplicate", "fraudulent", "requested_by_customer")
FULL = "full"
_MAX_TEXT, _MAX_DIGITS, _MAX_TOLD = 500, 9, 20  # characters of a cell, digits of a quantity, bad rows that are named


@dataclass(frozen=True)
class RefundRow:
    """One row; what is empty in the file is None. `line`: where it stands, from 1. `amount`: None for all that remains;
    `request_id`: the file's own."""

    line: int
    purchase: str
    amount: str | None
    quantity: int | None
    invoice: str | None
    tenancy: str | None
    reason: str | None
    note: str | None
    request_id: str | None


def derive_request_id(purchase: Purchase, request: RefundRequest) -> str:
    """Of a row without one: made of what it asks for, so that the same is the same refund in any file, however it is
    written (`5` or `5.00`; no quantity or 0 of an amount)."""
    asked = (str(purchase.tenancy), str(purchase.id), request.invoice, request.document)
    return f"row {hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]}"


def parse_refund_rows(
    name: str, data: bytes, check: Callable[[RefundRow], object], warn: Callable[[str], None]
) -> Sequence[RefundRow]:
    """The rows of a file, all of them good. `check` raises ValueError or StackctlError for what can't be asked.

    Raises ConfigError (`refunds-unreadable`, `invalid-refund-row`, which names up to twenty bad rows).
    """
    try:
        text = decode_text(data)
    except ValueError as error:
        raise ConfigError(f"{name} {error}", code="refunds-unreadable", hint="save the file as UTF-8") from None
    rows: list[RefundRow] = []
    wrong: list[tuple[int, str]] = []
    lines_of_requests: dict[tuple[str | None, str], int] = {}
    try:
        for line, cells in read_rows(text, COLUMNS, REQUIRED, tabs=name.lower().endswith(".tsv"),
                                     warn=lambda told: warn(f"{name}: {told}")):  # fmt: skip
            try:
                row = _to_row(line, cells)
                check(row)
            except Exception as error:
                if not isinstance(error, ValueError) and not hasattr(error, "hint"):
                    raise
                wrong.append((line, str(error)))
                continue
            if row.request_id is not None:
                first = lines_of_requests.setdefault((row.tenancy, row.request_id), line)
                if first != line:
                    wrong.append((line, f"the request id {row.request_id} is that of line {first}, too"))
            rows.append(row)
    except RowError as error:
        wrong.append((error.line, str(error)))
    if wrong:
        more = len(wrong) - _MAX_TOLD
        raise ConfigError(
            [*(f"{name}:{line}: {what}" for line, what in wrong[:_MAX_TOLD]), *([f"and {more} more"] * (more > 0))],
            code="invalid-refund-row",
            hint="nothing was refunded; see `stackctl refunds create --help`",
            details={"rows": [{"line": line, "problem": what} for line, what in wrong]},
        )
    if not rows:
        raise ConfigError(
            f"{name} has no rows", code="invalid-refund-row", hint=f"its columns are {', '.join(COLUMNS)}"
        )
    return rows


def _to_row(line: int, cells: dict[str, str]) -> RefundRow:
    """Raises ValueError."""
    given = {column: cells.get(column) or None for column in COLUMNS}
    for column, value in given.items():
        if value is not None and (len(value) > _MAX_TEXT or not value.isprintable()):
            raise ValueError(f"{column}: up to {_MAX_TEXT} printable characters")
    purchase, amount, quantity, reason = (given[name] for name in ("purchase", "amount", "quantity", "reason"))
    if purchase is None:
        raise ValueError("the purchase is missing")
    if amount is None:
        raise ValueError(f"the amount is missing; {FULL} is all that remains")
    if quantity is not None and not (quantity.isascii() and quantity.isdigit() and len(quantity) <= _MAX_DIGITS):
        raise ValueError(f"quantity: {quantity[:40]!r} is not a whole number")
    if reason is not None and reason.lower() not in REASONS:
        raise ValueError(f"reason: {reason[:40]!r} is none of {', '.join(REASONS)}")
    return RefundRow(
        line=line,
        purchase=purchase,
        amount=None if amount.lower() == FULL else amount,
        quantity=int(quantity) if quantity else None,
        invoice=given["invoice"],
        tenancy=given["tenancy"],
        reason=reason and reason.lower(),
        note=given["note"],
        request_id=given["request_id"],
    )

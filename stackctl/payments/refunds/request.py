"""What a refund is to be: entries and amounts, held against what the purchase stands at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackctl.core.errors import StateError, UsageError
from stackctl.payments.gateway import REFUND_ID
from stackctl.payments.money import decimal, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.payments.refunds.balance import Position

GRANT, CHARGE = 0, 1  # the entries of a purchase
MOMENTS = 600  # seconds in which an identical refund is taken for a mistake


@dataclass(frozen=True)
class Entry:
    """What is to be given back of one entry of a purchase. `amount`: in cents."""

    index: int
    quantity: int
    amount: int

    @property
    def document(self) -> dict[str, Any]:
        return {"entry_index": self.index, "quantity": self.quantity, "amount_usd": decimal(self.amount)}


@dataclass(frozen=True)
class Wanted:
    """What was asked for. `entries` is None for all that remains; `invoice`: of a renewal; `again`: though an identical
    refund was just made."""

    entries: tuple[Entry, ...] | None
    reason: str | None = None
    note: str | None = None
    request_id: str | None = None
    invoice: str | None = None
    again: bool = False


def entries(wanted: Wanted, position: Position) -> tuple[Entry, ...]:
    """What is to be refunded, once it is sure that it can be.

    Raises UsageError `schema-error`; StateError: that of `position.refusal`, `amount-over-remainder`,
    `quantity-over-remainder`, `refund-under-way`, `refunded-moments-ago`,
    `revoked-already`.
    """
    if position.refusal is not None:
        raise position.refusal
    asked = wanted.entries or (Entry(GRANT, position.quantity_left, position.remaining),)
    for place, entry in enumerate(asked):
        if entry.index == CHARGE:
            raise _schema(f"entry {CHARGE} is the charge; the product is entry {GRANT}")
        if entry.index != GRANT:
            raise _schema(f"the purchase has no entry {entry.index}; the product is entry {GRANT}")
        if entry.index in [one.index for one in asked[:place]]:
            raise _schema(f"entry {entry.index} is named twice")
        if entry.quantity > position.quantity_left:
            raise StateError(
                f"{entry.quantity} of {position.purchase.name} can't be revoked: {position.quantity_left} of "
                f"{position.bought} are left",
                code="quantity-over-remainder",
                hint="a quantity of 0 gives back money only",
                details={"quantity_left": position.quantity_left},
            )
    amount = sum(entry.amount for entry in asked)
    if amount <= 0:
        raise _schema("a refund of nothing: the amount must be above 0")
    if amount > position.remaining:
        held = f", and {shown(position.held, 'usd')} are held by refunds under way" if position.held else ""
        raise StateError(
            f"{shown(amount, 'usd')} is more than the {shown(position.remaining, 'usd')} that remain of "
            f"{shown(position.charged, 'usd')} charged{held}",
            code="amount-over-remainder",
            hint="--full refunds all that remains",
            details={"remaining_usd": decimal(position.remaining), "amount_usd": decimal(amount)},
        )
    _nothing_like_it(wanted, asked, position)
    return asked


def _nothing_like_it(wanted: Wanted, asked: Sequence[Entry], position: Position) -> None:
    _not_revoked_already(wanted, position)
    documents = [entry.document for entry in asked]
    intent = position.payment and position.payment.intent
    for one in position.ledger:
        if not one.holds_money:
            continue
        if one.subscription and one.quantity and not one.is_settled and any(entry.quantity for entry in asked):
            raise StateError(
                f"refund {one.id} is not settled, and changes the subscription's quantity, too",
                code="refund-under-way",
                hint=f"run `stackctl refunds resume {one.id}` first",
            )
        alike = one.intent == intent and one.entries == documents
        if alike and not wanted.again and not wanted.request_id and (one.age < MOMENTS or not one.is_settled):
            raise StateError(
                f"the same was refunded {ago(one.age)}: refund {one.id}, which is {one.status}",
                code="refunded-moments-ago",
                hint="if it is to be refunded once more, pass --again"
                if one.is_settled
                else f"`stackctl refunds resume {one.id}` finds out what became of it",
                details={"refund": str(one.id)},
            )


def _not_revoked_already(wanted: Wanted, position: Position) -> None:
    """Whoever repeats a refund whose money came back means the same quantity, which is gone already."""
    if wanted.again or not any(entry.quantity for entry in wanted.entries or ()):
        return
    last = next((one for one in position.ledger if one.holds_money or one.stays_revoked), None)
    if last is not None and last.stays_revoked:
        raise StateError(
            f"refund {last.id} failed after the subscription was lowered: {last.quantity} stay revoked",
            code="revoked-already",
            hint="refund the money alone with --amount; to revoke still more, pass --again",
            details={"refund": str(last.id)},
        )


def _schema(message: str) -> UsageError:
    return UsageError(message, code="schema-error", hint="`stackctl refunds preview ID` shows the entries")


def ago(age: float) -> str:
    seconds = int(age)
    if seconds < 120:
        return f"{seconds} seconds ago"
    return f"{seconds // 60} minutes ago" if seconds < 7200 else f"{seconds // 3600} hours ago"


def request(position: Position, asked: Sequence[Entry], wanted: Wanted, id_: str) -> dict[str, Any]:
    """The parameters of Stripe's refund."""
    assert position.payment is not None
    amount = sum(entry.amount for entry in asked)
    params: dict[str, Any] = {"payment_intent": position.payment.intent, "amount": amount, "expand": ["charge"]}
    if wanted.reason:
        params["reason"] = wanted.reason
    return params | {"metadata": {REFUND_ID: id_, "stackctl_purchase_id": str(position.purchase.id)}}

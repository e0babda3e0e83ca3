"""What a refund is to be: entries and amounts, held against what the purchase stands at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackctl.core.errors import StateError, UsageError
from stackctl.payments.gateway import REFUND_ID
from stackctl.payments.money import format_decimal, format_money

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.payments.refunds.balance import RefundableBalance

GRANT, CHARGE = 0, 1  # the entries of a purchase
REPETITION_WINDOW = 600  # seconds in which an identical refund is taken for a mistake


@dataclass(frozen=True)
class RefundEntry:
    """What is to be given back of one entry of a purchase. `amount`: in cents."""

    index: int
    quantity: int
    amount: int

    @property
    def document(self) -> dict[str, Any]:
        return {"entry_index": self.index, "quantity": self.quantity, "amount_usd": format_decimal(self.amount)}


@dataclass(frozen=True)
class RefundRequest:
    """What was asked for. `entries` is None for all that remains; `invoice`: of a renewal; `again`: though an identical
    refund was just made."""

    entries: tuple[RefundEntry, ...] | None
    reason: str | None = None
    note: str | None = None
    request_id: str | None = None
    invoice: str | None = None
    again: bool = False


def resolve_entries(request: RefundRequest, balance: RefundableBalance) -> tuple[RefundEntry, ...]:
    """What is to be refunded, once it is sure that it can be.

    Raises UsageError `schema-error`; StateError: that of `position.refusal`, `amount-over-remainder`,
    `quantity-over-remainder`, `refund-under-way`, `refunded-moments-ago`,
    `revoked-already`.
    """
    if balance.refusal is not None:
        raise balance.refusal
    entries = request.entries or (RefundEntry(GRANT, balance.quantity_left, balance.remaining),)
    for place, entry in enumerate(entries):
        if entry.index == CHARGE:
            raise _schema_error(f"entry {CHARGE} is the charge; the product is entry {GRANT}")
        if entry.index != GRANT:
            raise _schema_error(f"the purchase has no entry {entry.index}; the product is entry {GRANT}")
        if entry.index in [one.index for one in entries[:place]]:
            raise _schema_error(f"entry {entry.index} is named twice")
        if entry.quantity > balance.quantity_left:
            raise StateError(
                f"{entry.quantity} of {balance.purchase.name} can't be revoked: {balance.quantity_left} of "
                f"{balance.bought} are left",
                code="quantity-over-remainder",
                hint="a quantity of 0 gives back money only",
                details={"quantity_left": balance.quantity_left},
            )
    amount = sum(entry.amount for entry in entries)
    if amount <= 0:
        raise _schema_error("a refund of nothing: the amount must be above 0")
    if amount > balance.remaining:
        held = f", and {format_money(balance.held, 'usd')} are held by refunds under way" if balance.held else ""
        raise StateError(
            f"{format_money(amount, 'usd')} is more than the {format_money(balance.remaining, 'usd')} that remain of "
            f"{format_money(balance.charged, 'usd')} charged{held}",
            code="amount-over-remainder",
            hint="--full refunds all that remains",
            details={"remaining_usd": format_decimal(balance.remaining), "amount_usd": format_decimal(amount)},
        )
    _refuse_repetition(request, entries, balance)
    return entries


def _refuse_repetition(request: RefundRequest, entries: Sequence[RefundEntry], balance: RefundableBalance) -> None:
    _refuse_repeated_revocation(request, balance)
    documents = [entry.document for entry in entries]
    intent = balance.payment and balance.payment.intent
    for one in balance.ledger:
        if not one.holds_money:
            continue
        if one.subscription and one.quantity and not one.is_settled and any(entry.quantity for entry in entries):
            raise StateError(
                f"refund {one.id} is not settled, and changes the subscription's quantity, too",
                code="refund-under-way",
                hint=f"run `stackctl refunds resume {one.id}` first",
            )
        alike = one.intent == intent and one.entries == documents
        if (
            alike
            and not request.again
            and not request.request_id
            and (one.age < REPETITION_WINDOW or not one.is_settled)
        ):
            raise StateError(
                f"the same was refunded {format_age(one.age)}: refund {one.id}, which is {one.status}",
                code="refunded-moments-ago",
                hint="if it is to be refunded once more, pass --again"
                if one.is_settled
                else f"`stackctl refunds resume {one.id}` finds out what became of it",
                details={"refund": str(one.id)},
            )


def _refuse_repeated_revocation(request: RefundRequest, balance: RefundableBalance) -> None:
    """Whoever repeats a refund whose money came back means the same quantity, which is gone already."""
    if request.again or not any(entry.quantity for entry in request.entries or ()):
        return
    last = next((one for one in balance.ledger if one.holds_money or one.stays_revoked), None)
    if last is not None and last.stays_revoked:
        raise StateError(
            f"refund {last.id} failed after the subscription was lowered: {last.quantity} stay revoked",
            code="revoked-already",
            hint="refund the money alone with --amount; to revoke still more, pass --again",
            details={"refund": str(last.id)},
        )


def _schema_error(message: str) -> UsageError:
    return UsageError(message, code="schema-error", hint="`stackctl refunds preview ID` shows the entries")


def format_age(age: float) -> str:
    seconds = int(age)
    if seconds < 120:
        return f"{seconds} seconds ago"
    return f"{seconds // 60} minutes ago" if seconds < 7200 else f"{seconds // 3600} hours ago"


def to_stripe_params(
    balance: RefundableBalance, entries: Sequence[RefundEntry], request: RefundRequest, id_: str
) -> dict[str, Any]:
    """The parameters of Stripe's refund."""
    assert balance.payment is not None
    amount = sum(entry.amount for entry in entries)
    params: dict[str, Any] = {"payment_intent": balance.payment.intent, "amount": amount, "expand": ["charge"]}
    if request.reason:
        params["reason"] = request.reason
    return params | {"metadata": {REFUND_ID: id_, "stackctl_purchase_id": str(balance.purchase.id)}}

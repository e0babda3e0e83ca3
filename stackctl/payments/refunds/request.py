"""What a refund is to be: entries and amounts, held against what the purchase stands at."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from stackctl.core.durations import format_age
from stackctl.core.errors import StateError, UsageError
from stackctl.payments.gateway import REFUND_ID
from stackctl.payments.money import AskedAmount, format_decimal, format_money

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.payments.refunds.balance import RefundableBalance

End = Literal["now", "period", "no"]
GRANT, CHARGE = 0, 1  # the entries of a purchase
ALL_OF_IT = AskedAmount(Decimal(100), is_percent=True)
REPETITION_WINDOW = 600  # seconds in which an identical refund is taken for a mistake


@dataclass(frozen=True)
class AskedEntry:
    """What was asked for of one entry of a purchase. `quantity`: None where nothing was said of it."""

    index: int
    quantity: int | None
    amount: AskedAmount


@dataclass(frozen=True)
class RefundEntry:
    """What is to be given back of one entry of a purchase. `amount`: in the currency's smallest unit."""

    index: int
    quantity: int
    amount: int
    currency: str

    @property
    def document(self) -> dict[str, Any]:
        amount = format_decimal(self.amount, self.currency)
        money = {"amount_usd": amount} if self.currency == "usd" else {"amount": amount, "currency": self.currency}
        return {"entry_index": self.index, "quantity": self.quantity, **money}


@dataclass(frozen=True)
class RefundRequest:
    """What was asked for. `entries` is None for all that remains; `revoke`: of that, another quantity than all; `end`:
    when the subscription ends, where that does not follow from the quantity; `credit_note`: the money comes with one of
    the invoice. `invoice`: of a renewal; `by`: who asks; `is_derived`: the request id was made of what is asked, and
    does not say that another refund is meant; `again`: though an identical refund was just made."""

    entries: tuple[AskedEntry, ...] | None
    revoke: int | None = None
    end: End | None = None
    credit_note: bool = False
    reason: str | None = None
    note: str | None = None
    by: str | None = None
    request_id: str | None = None
    is_derived: bool = False
    invoice: str | None = None
    again: bool = False

    @property
    def document(self) -> dict[str, Any]:
        """What makes it the same request when it comes again."""
        asked: dict[str, Any] = {"full": True}
        if self.entries is not None:
            asked = {"amount": str(self.entries[0].amount), "quantity": self.entries[0].quantity or 0}
        further = {"revoke": self.revoke, "end": self.end, "credit_note": self.credit_note or None}
        return asked | {name: value for name, value in further.items() if value is not None}


def resolve_entries(request: RefundRequest, balance: RefundableBalance) -> tuple[RefundEntry, ...]:
    """What is to be refunded, once it is sure that it can be.

    Raises UsageError `schema-error` and `usage`; StateError: that of `balance.refusal`, `amount-over-remainder`,
    `quantity-over-remainder`, `refund-under-way`, `refunded-moments-ago`,
    `revoked-already`.
    """
    asked = request.entries or (AskedEntry(GRANT, request.revoke, ALL_OF_IT),)
    for place, entry in enumerate(asked):
        if entry.index == CHARGE:
            raise _schema_error(f"entry {CHARGE} is the charge; the product is entry {GRANT}")
        if entry.index != GRANT:
            raise _schema_error(f"the purchase has no entry {entry.index}; the product is entry {GRANT}")
        if entry.index in [one.index for one in asked[:place]]:
            raise _schema_error(f"entry {entry.index} is named twice")
    wanted = asked[0]  # as there is but one that can be refunded
    is_moneyless = request.entries is not None and not wanted.amount.number
    refusal = balance.refusal if not is_moneyless else balance.lasting_refusal
    if refusal is not None:
        raise refusal
    assert balance.payment is not None, "what has no payment is refused"
    if request.credit_note and (balance.invoice is None or is_moneyless):
        what = "an amount above 0" if balance.invoice else "a subscription's invoice; this is a one-time purchase"
        raise UsageError(f"--credit-note goes with {what}", code="usage")
    currency, is_full = balance.payment.currency, request.entries is None
    quantity = _resolve_quantity(request, balance, wanted.quantity)
    amount = balance.remaining if is_full else wanted.amount.to_units(currency, balance.charged)
    if amount <= 0 and not is_moneyless:
        raise _schema_error(f"{wanted.amount} of {format_money(balance.charged, currency)} is nothing")
    if is_moneyless and not quantity and request.end in (None, "no"):
        raise _schema_error("a refund of nothing: the amount must be above 0, or something be revoked")
    if amount > balance.remaining:
        held = f", and {format_money(balance.held, currency)} are held by refunds under way" if balance.held else ""
        raise StateError(
            f"{format_money(amount, currency)} is more than the {format_money(balance.remaining, currency)} that "
            f"remain of {format_money(balance.charged, currency)} charged{held}",
            code="amount-over-remainder",
            hint="--full refunds all that remains",
            details=_describe_amounts(amount, balance.remaining, currency),
        )
    entries = (RefundEntry(GRANT, quantity, amount, currency),)
    _refuse_repetition(request, entries, balance)
    return entries


def _resolve_quantity(request: RefundRequest, balance: RefundableBalance, quantity: int | None) -> int:
    """How many are revoked: what was said; else all where all is refunded or the subscription is to end, else none."""
    left = balance.quantity_left
    if request.end is not None and balance.purchase.type != "subscription":
        raise UsageError("--end goes with a subscription; this is a one-time purchase", code="usage")
    if quantity is None:
        takes_all = request.entries is None or request.end in ("now", "period")
        return 0 if request.end == "no" or not takes_all else left
    if quantity > left:
        raise StateError(
            f"{quantity} of {balance.purchase.name} can't be revoked: {left} of {balance.bought} are left",
            code="quantity-over-remainder",
            hint="a quantity of 0 gives back money only",
            details={"quantity_left": left},
        )
    if request.end == "no" and quantity and quantity == left:
        raise UsageError(
            "a subscription of which nothing is left ends: --end no can't keep it", code="usage", hint="revoke less"
        )
    if request.end in ("now", "period") and quantity < left:
        raise UsageError(
            f"a subscription that ends leaves nothing: --end {request.end} revokes all {left}",
            code="usage",
            hint="leave out the quantity",
        )
    return quantity


def _describe_amounts(amount: int, remaining: int, currency: str) -> dict[str, Any]:
    said = {"remaining": format_decimal(remaining, currency), "amount": format_decimal(amount, currency)}
    return {**said, "currency": currency} | (
        {"remaining_usd": said["remaining"], "amount_usd": said["amount"]} if currency == "usd" else {}
    )


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
        if request.again or (request.request_id and not request.is_derived):
            continue
        # Its own refund, which another process has written just now, is no repetition.
        is_own = request.request_id is not None and one.request_id == request.request_id
        alike = one.intent == intent and one.entries == documents and not is_own
        if alike and (one.age < REPETITION_WINDOW or not one.is_settled):
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


def to_stripe_params(
    balance: RefundableBalance, entries: Sequence[RefundEntry], request: RefundRequest, id_: str
) -> dict[str, Any]:
    """The parameters of Stripe's refund, or of its credit note."""
    assert balance.payment is not None
    amount = sum(entry.amount for entry in entries)
    metadata = {REFUND_ID: id_, "stackctl_purchase_id": str(balance.purchase.id)}
    metadata |= {"stackctl_by": request.by} if request.by else {}
    params: dict[str, Any] = {"payment_intent": balance.payment.intent, "amount": amount, "expand": ["charge"]}
    reason = request.reason
    if request.credit_note:
        params = {"invoice": balance.invoice, "amount": amount, "refund_amount": amount,
                  "expand": ["refunds.refund.charge"]}  # fmt: skip
        reason = None if reason == "requested_by_customer" else reason  # which a credit note has not
    return params | ({"reason": reason} if reason else {}) | {"metadata": metadata}

"""The ledger of refunds held against Stripe: every difference, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stackctl.core.errors import StateError
from stackctl.payments.money import format_money

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from stackctl.payments.gateway import Gateway, StripeRefund
    from stackctl.payments.refunds.ledger import Refund

Kind = Literal["not-in-stripe", "not-in-ledger", "made-elsewhere", "status", "amount", "quantity-not-revoked"]


@dataclass(frozen=True)
class Difference:
    kind: Kind
    refund: UUID | None
    stripe_refund: str | None
    message: str


def compare_with_stripe(
    gateway: Gateway, stripe_refunds: Sequence[StripeRefund], refunds: Sequence[Refund], since: datetime | None
) -> Sequence[Difference]:
    """`stripe_refunds`: what Stripe has since a time, or ever; `refunds`: all in the ledger of the account and mode.

    Stripe is to be read first: a refund that is made meanwhile is then in the ledger, and looked up.
    """
    by_id = {one.id: one for one in stripe_refunds}
    by_ledger_id = {one.ledger_id: one for one in stripe_refunds if one.ledger_id}
    found: list[Difference] = []
    for refund in refunds:
        if since and refund.created_at < since:
            continue
        own = by_id.get(refund.stripe_refund or "") or by_ledger_id.get(str(refund.id)) or _look_up(gateway, refund)
        found += _compare_refund(refund, own)
    known = {str(refund.id) for refund in refunds}
    ids = {refund.stripe_refund for refund in refunds}
    for one in stripe_refunds:
        if one.id in ids or one.ledger_id in known:
            continue
        what = f"Stripe has a refund of {format_money(one.amount, one.currency)} of {one.intent} that is {one.status}"
        if one.ledger_id:
            found.append(Difference("not-in-ledger", None, one.id, f"{what}, as {one.ledger_id}; the ledger does not"))
        else:
            found.append(Difference("made-elsewhere", None, one.id, f"{what}; it was not made by stackctl"))
    return found


def _look_up(gateway: Gateway, refund: Refund) -> StripeRefund | None:
    """One that Stripe made earlier than the time that was asked for."""
    if refund.stripe_refund is None:
        return None
    try:
        return gateway.get_refund(refund.stripe_refund)
    except StateError:
        return None


def _compare_refund(refund: Refund, stripe_refund: StripeRefund | None) -> Sequence[Difference]:
    stripe_id = stripe_refund.id if stripe_refund else refund.stripe_refund

    def difference(kind: Kind, message: str) -> Difference:
        return Difference(kind, refund.id, stripe_id, message)

    if stripe_refund is None:
        # What failed, or was never sent, left nothing behind.
        if refund.stripe_refund is None and (not refund.holds_money or refund.status == "planned"):
            return []
        return [difference("not-in-stripe", f"the ledger has it as {refund.status}, and Stripe does not have it")]
    found: list[Difference] = []
    if stripe_refund.status != refund.status:
        what = f"the ledger says {refund.status}, Stripe says {stripe_refund.status}"
        found.append(difference("status", f"{what}; `stackctl refunds resume {refund.id}` takes it over"))
    if (stripe_refund.amount, stripe_refund.currency) != (refund.amount, refund.currency):
        ours, theirs = (
            format_money(refund.amount, refund.currency),
            format_money(stripe_refund.amount, stripe_refund.currency),
        )
        found.append(difference("amount", f"the ledger says {ours}, Stripe says {theirs}"))
    if refund.status == "succeeded" and not refund.revoked:
        found.append(
            difference("quantity-not-revoked", f"{refund.quantity} are still to be taken off the subscription")
        )
    return found

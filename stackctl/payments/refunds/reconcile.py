"""The ledger of refunds held against Stripe: every difference, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stackctl.core.errors import StateError
from stackctl.payments.money import shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from stackctl.payments.gateway import Gateway, Made
    from stackctl.payments.refunds.ledger import Refund

Kind = Literal["not-in-stripe", "not-in-ledger", "made-elsewhere", "status", "amount", "quantity-not-revoked"]


@dataclass(frozen=True)
class Difference:
    kind: Kind
    refund: UUID | None
    stripe_refund: str | None
    message: str


def compare(
    gateway: Gateway, made: Sequence[Made], refunds: Sequence[Refund], since: datetime | None
) -> Sequence[Difference]:
    """`made`: what Stripe has since a time, or ever; `refunds`: all that the ledger has of the account and mode.

    Stripe is to be read first: a refund that is made meanwhile is then in the ledger, and looked up.
    """
    by_id = {one.id: one for one in made}
    by_ours = {one.ours: one for one in made if one.ours}
    found: list[Difference] = []
    for refund in refunds:
        if since and refund.created_at < since:
            continue
        own = by_id.get(refund.stripe_refund or "") or by_ours.get(str(refund.id)) or _looked_up(gateway, refund)
        found += _of(refund, own)
    known = {str(refund.id) for refund in refunds}
    ids = {refund.stripe_refund for refund in refunds}
    for one in made:
        if one.id in ids or one.ours in known:
            continue
        what = f"Stripe has a refund of {shown(one.amount, one.currency)} of {one.intent} that is {one.status}"
        if one.ours:
            found.append(Difference("not-in-ledger", None, one.id, f"{what}, as {one.ours}; the ledger does not"))
        else:
            found.append(Difference("made-elsewhere", None, one.id, f"{what}; it was not made by stackctl"))
    return found


def _looked_up(gateway: Gateway, refund: Refund) -> Made | None:
    """One that Stripe made earlier than the time that was asked for."""
    if refund.stripe_refund is None:
        return None
    try:
        return gateway.refund_made(refund.stripe_refund)
    except StateError:
        return None


def _of(refund: Refund, made: Made | None) -> Sequence[Difference]:
    stripe_id = made.id if made else refund.stripe_refund

    def difference(kind: Kind, message: str) -> Difference:
        return Difference(kind, refund.id, stripe_id, message)

    if made is None:
        # What failed, or was never sent, left nothing behind.
        if refund.stripe_refund is None and (not refund.holds_money or refund.status == "planned"):
            return []
        return [difference("not-in-stripe", f"the ledger has it as {refund.status}, and Stripe does not have it")]
    found: list[Difference] = []
    if made.status != refund.status:
        what = f"the ledger says {refund.status}, Stripe says {made.status}"
        found.append(difference("status", f"{what}; `stackctl refunds resume {refund.id}` takes it over"))
    if (made.amount, made.currency) != (refund.amount, refund.currency):
        ours, theirs = shown(refund.amount, refund.currency), shown(made.amount, made.currency)
        found.append(difference("amount", f"the ledger says {ours}, Stripe says {theirs}"))
    if refund.status == "succeeded" and not refund.revoked:
        found.append(
            difference("quantity-not-revoked", f"{refund.quantity} are still to be taken off the subscription")
        )
    return found

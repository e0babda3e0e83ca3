"""The quantity of a refunded subscription, taken off once, in Stripe and in the database."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stackctl.core.errors import StateError
from stackctl.payments import purchases
from stackctl.payments.refunds import ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.payments.gateway import Gateway, SubscriptionItem
    from stackctl.payments.refunds.balance import RefundableBalance
    from stackctl.payments.refunds.ledger import Refund
    from stackctl.payments.refunds.request import RefundEntry
    from stackctl.postgres.connect import Connection


def revoke_quantity(conn: Connection, gateway: Gateway, refund: Refund) -> None:
    """Take the quantity off the subscription in Stripe, then in the database.

    Stripe is told an absolute number, and in the same update which refund it is for: so it is known whether it has
    heard, whatever was bought since. A quantity is never raised, a cancellation never taken back.
    """
    planned, subscription = refund.quantity_left, refund.subscription
    assert subscription is not None, "nothing else is revoked in Stripe"
    item = _find_item(gateway, subscription, only=planned != 0)
    if ledger.get_refund(conn, refund.id).revoked:
        return  # by somebody else meanwhile; the mark may be a later refund's by now
    left, lowers = _quantity_to_keep(refund, item), False
    if item is not None and item.last_refund_id != str(refund.id):
        _refuse_lasting(subscription, item, ends=left == 0, now=refund.ends_now)
        lowers = 0 < left < item.quantity
        if lowers:
            gateway.set_quantity(subscription, item.id, left, str(refund.id))
        elif refund.ends_now:
            _end_now(gateway, subscription)
        elif left == 0 and not item.ends_with_period:
            gateway.cancel_at_period_end(subscription, str(refund.id))
    with conn.transaction():
        purchases.lock_purchase(conn, refund.purchase_type, refund.tenancy, refund.purchase_id)
        purchases.lower_quantity(conn, refund.tenancy, refund.purchase_id, left, ends_now=refund.ends_now)
        ledger.mark_revoked(conn, refund.id)
        least = ledger.find_least_quantity(conn, refund.tenancy, refund.purchase_id)
    if item is not None and lowers and least is not None and 0 < least < left == planned:
        # Somebody else settled this one while we slept, and a later refund has lowered it further, or is about to.
        gateway.set_quantity(subscription, item.id, least, str(refund.id))


def _end_now(gateway: Gateway, subscription: str) -> None:
    try:
        gateway.cancel_now(subscription)
    except StateError as error:
        # Stripe does not find what has ended: somebody else was faster, or a first answer was lost.
        if error.code != "stripe-not-found":
            raise


def _quantity_to_keep(refund: Refund, item: SubscriptionItem | None) -> int:
    """What the subscription is to keep; 0: it ends. What was bought since the refund was planned stays.

    Without a row in the database `quantity_left` is None, and only Stripe knows.
    """
    planned = refund.quantity_left
    if item is None or refund.ends_now:
        return planned or 0
    if item.last_refund_id == str(refund.id):  # Stripe has heard of it
        return 0 if planned == 0 and item.ends_with_period else max(planned or 0, item.quantity)
    return 0 if planned == 0 else max(planned or 0, item.quantity - refund.quantity)


def _find_item(gateway: Gateway, subscription: str, *, only: bool) -> SubscriptionItem | None:
    """None where Stripe has nothing more to change."""
    try:
        item = gateway.get_subscription_item(subscription, only=only)
    except StateError as error:
        if error.code == "stripe-not-found":
            return None
        raise
    return None if item.ended else item


def _refuse_lasting(subscription: str, item: SubscriptionItem, *, ends: bool, now: bool = False) -> None:
    """What Stripe, or a later change of its own, would undo. `ends`: all is revoked, so that it ends with its period,
    or `now`.

    Raises StateError `subscription-scheduled`, `subscription-update-pending`, `subscription-metered`.
    """
    if item.ended or (ends and item.ends_with_period and not now):
        return
    if item.schedule is not None:
        raise StateError(
            f"subscription {subscription} is managed by schedule {item.schedule}, which would bill on as it says",
            code="subscription-scheduled",
            hint="refund the money alone with --amount; or end the schedule and its phases with --release-schedule",
        )
    if item.awaits_update:
        raise StateError(
            f"a change of subscription {subscription} waits for its payment, and would bring its own quantity",
            code="subscription-update-pending",
            hint="wait until it is paid or expires, within 23 hours; or refund the money alone with --amount",
        )
    if item.metered and not ends:
        raise StateError(
            f"subscription {subscription} is billed for what is used: it has no quantity to be lowered",
            code="subscription-metered",
            hint="refund the money alone with --amount, or --full to end the subscription with its period",
        )


def check_planned(gateway: Gateway, refund: Refund) -> None:
    """`check_quantity`, of a refund that was planned by somebody who is gone; one call at the most.

    Raises StateError as that one does.
    """
    if refund.subscription is None or not (refund.quantity or refund.ends_now):
        return
    item = _find_item(gateway, refund.subscription, only=True)
    if item is None:
        return
    ends = refund.ends_now or refund.quantity >= item.quantity
    _refuse_lasting(refund.subscription, item, ends=ends, now=refund.ends_now)


def check_quantity(
    gateway: Gateway,
    balance: RefundableBalance,
    entries: Sequence[RefundEntry],
    *,
    ends_now: bool = False,
    release_schedule: bool = False,
) -> str | None:
    """Whether the quantity can be taken off a subscription, before any money moves; one call, if there is any.

    Returns the schedule that is to be released for it. Raises StateError `quantity-differs`,
    `subscription-has-several-items`, `stripe-not-found`, and what `_refuse_lasting` does.
    """
    purchase, taken = balance.purchase, sum(entry.quantity for entry in entries)
    if purchase.type != "subscription" or purchase.stripe_id is None or not (taken or ends_now):
        return None
    partly = taken < balance.quantity_left
    item = gateway.get_subscription_item(purchase.stripe_id)
    if partly and item.quantity != purchase.quantity and not item.ended:
        raise StateError(
            f"subscription {purchase.id} has {purchase.quantity} in the database and {item.quantity} in Stripe",
            code="quantity-differs",
            hint="wait for Stripe's webhook, or refund the money alone with --amount",
        )
    schedule = item.schedule if release_schedule else None
    _refuse_lasting(
        purchase.stripe_id, replace(item, schedule=None) if schedule else item, ends=not partly, now=ends_now
    )
    return schedule

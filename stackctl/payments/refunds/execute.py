"""Refunds: planned and sent so that none happens twice and none is lost, whatever is killed when.

The row of the ledger is committed first, with all that Stripe will be asked and with its money held; then that it is
being sent; then Stripe is asked, under the row's own key and with the row's id in the refund's metadata; then what came
of it is committed together with the purchase. Whoever finds a row whose outcome is unknown can so find it out: the
refund with that id is there, or the same question under the same key can be asked again.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from stackctl.core.errors import OutcomeUnknown, ServiceError, StackctlError, StateError, UsageError
from stackctl.payments import purchases
from stackctl.payments.refunds import ledger
from stackctl.payments.refunds.balance import Position, of_purchase
from stackctl.payments.refunds.request import ago, entries, request
from stackctl.postgres.errors import translate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackctl.payments.gateway import Gateway, Item, Made
    from stackctl.payments.refunds.ledger import Refund
    from stackctl.payments.refunds.request import Entry, Wanted
    from stackctl.postgres.connect import Connection

# Stripe may forget a key after 24 hours, and would then take the same request for a new one.
RESEND_FOR = 23 * 3600  # seconds
PAUSES = (0.5, 2.0)  # seconds before an unanswered refund is looked for


@dataclass(frozen=True)
class Outcome:
    """`problem`: why it is not settled, or why it failed."""

    refund: Refund
    problem: StackctlError | None = None


def key_of(id_: str) -> str:
    return f"stackctl-refund-{id_}"


def of_request(conn: Connection, purchase: purchases.Purchase, wanted: Wanted) -> Refund | None:
    """The refund that this request has led to. Raises StateError `request-id-reused` where it asked for another."""
    if wanted.request_id is None:
        return None
    found = ledger.find(conn, tenancy=purchase.tenancy, request=wanted.request_id)
    if not found:
        return None
    same = found[0].purchase_id == purchase.id and found[0].is_full == (wanted.entries is None)
    if same and wanted.entries is not None:
        same = found[0].entries == [entry.document for entry in wanted.entries]
    if same and purchase.type == "subscription":
        same = found[0].invoice == purchases.invoice(conn, purchase, wanted.invoice)
    if not same:
        raise _reused(wanted, found[0])
    return found[0]


def plan(conn: Connection, position: Position, asked: Sequence[Entry], wanted: Wanted) -> Refund:
    """Write the refund into the ledger; one transaction, in which the purchase's row is locked and looked at again.

    The same request's refund, if another process has written it meanwhile. Raises what `entries` does, and StateError
    `changed-meanwhile` where all that remains is not what it was.
    """
    assert position.payment is not None
    purchase, payment = position.purchase, position.payment
    id_ = uuid.uuid4()
    with conn.transaction():
        purchases.lock(conn, purchase.type, purchase.tenancy, purchase.id)
        known = of_request(conn, purchase, wanted)
        if known is not None:
            return known
        again = position.again(conn)
        if entries(wanted, again) != tuple(asked) or again.purchase.quantity != purchase.quantity:
            raise StateError(
                f"{purchase.id} was changed by somebody else meanwhile; nothing was refunded",
                code="changed-meanwhile",
                hint="look at `stackctl refunds preview`, and try again",
            )
        values = {
            "id": id_, "tenancy": purchase.tenancy, "purchase_type": purchase.type, "purchase_id": purchase.id,
            "customer": purchase.customer, "request_id": wanted.request_id, "account": position.account,
            "livemode": payment.livemode, "intent": payment.intent, "invoice": position.invoice,
            "subscription": purchase.stripe_id if purchase.type == "subscription" else None,
            "amount": sum(entry.amount for entry in asked), "currency": payment.currency,
            "quantity": sum(entry.quantity for entry in asked), "entries": [entry.document for entry in asked],
            "is_full": wanted.entries is None, "note": wanted.note,
            "params": request(position, asked, wanted, str(id_)), "key": key_of(str(id_)),
        }  # fmt: skip
        try:
            ledger.plan(conn, values)
        except psycopg.errors.UniqueViolation:
            # Of another purchase, whose row is not the one that is locked, the same request was written just now.
            raise _reused(wanted) from None
    return ledger.get(conn, id_)


def _reused(wanted: Wanted, by: Refund | None = None) -> StateError:
    return StateError(
        f"request {wanted.request_id} was for another refund" + (f": {by.id}" if by else ""),
        code="request-id-reused",
        hint="each refund has a request id of its own",
        details={"refund": str(by.id)} if by else {},
    )


# -- what becomes of it


def carry_out(
    conn: Connection,
    gateway: Gateway,
    refund: Refund,
    position: Position | None = None,
    *,
    unanswered: Callable[[float], Any] = time.sleep,
) -> Outcome:
    """Send a planned refund, and find out what became of it; of another one, what `settle` does.

    `unanswered` is called with the seconds to wait, before a refund that Stripe has not answered is looked for.

    Raises ServiceError and StateError where Stripe refused, and the refund so failed.
    """
    if refund.status != "planned" or not ledger.submit(conn, refund.id):
        return settle(conn, gateway, ledger.get(conn, refund.id))
    try:
        return _sent(conn, gateway, refund, position, unanswered)
    except psycopg.Error as error:
        raise _not_recorded(refund, error) from error


def _sent(
    conn: Connection, gateway: Gateway, refund: Refund, position: Position | None, unanswered: Callable[[float], Any]
) -> Outcome:
    try:
        made = gateway.refund(refund.params, refund.key)
    except OutcomeUnknown as error:
        return _found_out(conn, gateway, refund, error, unanswered)
    except (ServiceError, StateError) as error:
        # It was asked but once, so nothing was done; unless somebody else resumes it at this moment.
        ledger.close(conn, refund.id, "failed", error.message, first=True)
        now = ledger.get(conn, refund.id)
        if now.holds_money:
            return Outcome(now, None if now.is_settled else error)
        error.details["refund"] = str(refund.id)
        raise
    return _written_down(conn, gateway, refund, made, position)


def _found_out(
    conn: Connection, gateway: Gateway, refund: Refund, unknown: StackctlError, unanswered: Callable[[float], Any]
) -> Outcome:
    for pause in PAUSES:
        unanswered(pause)
        try:
            outcome = settle(conn, gateway, ledger.get(conn, refund.id))
        except StackctlError:
            continue  # it stays unknown
        if outcome.refund.status != "submitted":
            return outcome
    return Outcome(ledger.get(conn, refund.id), unknown)


def settle(conn: Connection, gateway: Gateway, refund: Refund) -> Outcome:
    """Find out what became of a refund, and finish what is unfinished; safe to be done by two at once, and again.

    Raises ServiceError where Stripe can't be asked, StateError `key-of-other-mode`.
    """
    if refund.stripe_refund is not None and not refund.holds_money:
        return Outcome(refund)
    if (gateway.mode == "live") != refund.livemode:
        raise StateError(
            f"refund {refund.id} was made in {'live' if refund.livemode else 'test'} mode, and the key is a "
            f"{gateway.mode} key",
            code="key-of-other-mode",
            hint="set STRIPE_API_KEY to the platform's key of that mode",
        )
    if refund.status == "planned":
        return _settle_planned(conn, gateway, refund)
    if refund.stripe_refund is not None:
        return _recorded(conn, gateway, refund, gateway.refund_made(refund.stripe_refund))
    found = _ours(gateway, refund)
    if found is not None:
        return _recorded(conn, gateway, refund, found)
    if not refund.holds_money:
        return Outcome(refund)
    if refund.age >= RESEND_FOR:
        return Outcome(refund, _too_late(refund))
    return _sent_again(conn, gateway, refund)


def _settle_planned(conn: Connection, gateway: Gateway, refund: Refund) -> Outcome:
    """It was confirmed and is to happen; but not out of the blue on another day."""
    if refund.age < RESEND_FOR:
        return carry_out(conn, gateway, refund)
    ledger.close(conn, refund.id, "canceled", "never sent")
    return Outcome(ledger.get(conn, refund.id))


def _sent_again(conn: Connection, gateway: Gateway, refund: Refund) -> Outcome:
    if not ledger.send_again(conn, refund.id):
        return Outcome(ledger.get(conn, refund.id))
    try:
        made = gateway.refund(refund.params, refund.key)
    except OutcomeUnknown as error:
        return Outcome(refund, error)
    except StateError as error:
        # An earlier one that was done would have been answered with. Should Stripe forget that, the list does not.
        made = _ours(gateway, refund)
        if made is None and error.code == "stripe-not-found":
            return Outcome(refund, error)  # it was there: this key sees something else
        if made is None:
            ledger.close(conn, refund.id, "failed", error.message)
            return Outcome(ledger.get(conn, refund.id), error)
    return _written_down(conn, gateway, refund, made)


def cancel(conn: Connection, gateway: Gateway, refund: Refund) -> Outcome:
    """Give up one that can't be sent again any more and that Stripe does not have; its money is free. Or, of one whose
    money is back, the quantity that can't be taken off the subscription.

    Raises StateError `not-to-be-canceled`.
    """
    found = settle(conn, gateway, refund)
    if found.refund.status == "succeeded" and not found.refund.revoked:
        ledger.leave_quantity(conn, refund.id)
        return Outcome(ledger.get(conn, refund.id))
    if found.refund.status != "submitted" or found.refund.age < RESEND_FOR:
        raise StateError(
            f"refund {refund.id} is {found.refund.status}; only one that is submitted, that Stripe does not have and "
            "that is too old to be sent again can be given up, or a quantity that can't be revoked",
            code="not-to-be-canceled",
        )
    ledger.close(conn, refund.id, "canceled", "Stripe does not have it; given up")
    return Outcome(ledger.get(conn, refund.id))


def _too_late(refund: Refund) -> StackctlError:
    return OutcomeUnknown(
        f"refund {refund.id} was sent {ago(refund.age)}, and Stripe does not have it; it is too late to send it again "
        "under its key",
        code="too-late-to-resend",
        hint=f"look at payment {refund.intent} in Stripe's dashboard; if nothing was refunded, "
        f"`stackctl refunds resume {refund.id} --give-up` frees its money",
    )


def _ours(gateway: Gateway, refund: Refund) -> Made | None:
    return next((one for one in gateway.refunds(refund.intent) if one.ours == str(refund.id)), None)


def _written_down(
    conn: Connection, gateway: Gateway, refund: Refund, made: Made, position: Position | None = None
) -> Outcome:
    """`_recorded`, of one that Stripe was just asked for: whatever goes wrong now, it was sent."""
    try:
        return _recorded(conn, gateway, refund, made, position)
    except (psycopg.Error, StackctlError) as error:
        raise _not_recorded(refund, error) from error


def _not_recorded(refund: Refund, error: psycopg.Error | StackctlError) -> OutcomeUnknown:
    why = translate(error, "the operated database") if isinstance(error, psycopg.Error) else error
    return OutcomeUnknown(
        f"refund {refund.id} was sent to Stripe, and what came of it could not be written down: {why.message}",
        code="refund-not-recorded",
        hint=f"run `stackctl refunds resume {refund.id}`",
        details={"refund": str(refund.id)},
    )


def _recorded(
    conn: Connection, gateway: Gateway, refund: Refund, made: Made, position: Position | None = None
) -> Outcome:
    """Commit what Stripe says, together with the purchase's columns; then a subscription's quantity."""
    if position is None or _there_was_another(position, made):
        position = _position(conn, gateway, refund)
    with conn.transaction():
        purchases.lock(conn, refund.purchase_type, refund.tenancy, refund.purchase_id)
        ledger.record(conn, refund.id, status=made.status, stripe=made.id, failure=made.failure)
        now = ledger.get(conn, refund.id)
        if now.status == "succeeded":
            if refund.subscription:
                ledger.fix_quantity_left(conn, refund.id)
            after = position and position.again(conn)
            if after and after.is_paid_back:
                purchases.mark_refunded(conn, refund.purchase_type, refund.tenancy, refund.purchase_id, refund.invoice)
            if after and after.is_taken_back:  # of a one-time purchase
                purchases.mark_revoked(conn, refund.tenancy, refund.purchase_id)
        elif refund.status == "succeeded" and not now.holds_money:
            after = position and position.again(conn)
            if after and not after.is_paid_back:
                key = (refund.purchase_type, refund.tenancy, refund.purchase_id)
                purchases.unmark_refunded(conn, *key, refund.invoice)
    now = ledger.get(conn, refund.id)
    if now.status != "succeeded" or now.revoked:
        return Outcome(now)
    try:
        _revoke(conn, gateway, now)
    except StackctlError as error:
        return Outcome(now, error)
    return Outcome(ledger.get(conn, refund.id))


def _there_was_another(position: Position, made: Made) -> bool:
    """Whether somebody else, the dashboard say, has refunded since the position was read."""
    return made.charge_refunded is not None and made.charge_refunded > position.refunded + made.amount


def _position(conn: Connection, gateway: Gateway, refund: Refund) -> Position | None:
    """None where the purchase is gone, and no column of it is to be written."""
    try:
        purchase = purchases.find(conn, refund.purchase_id, refund.tenancy)
    except UsageError:
        return None
    payment, made = gateway.payment(refund.intent), gateway.refunds(refund.intent)
    return Position(purchase, refund.account, refund.invoice, payment, made, of_purchase(conn, purchase))


def _revoke(conn: Connection, gateway: Gateway, refund: Refund) -> None:
    """Take the quantity off the subscription in Stripe, then in the database.

    Stripe is told an absolute number, and in the same update which refund it is for: so it is known whether it has
    heard, whatever was bought since. A quantity is never raised, a cancellation never taken back.
    """
    planned, subscription = refund.quantity_left, refund.subscription
    assert subscription is not None, "nothing else is revoked in Stripe"
    item = _item(gateway, subscription, only=planned != 0)
    if ledger.get(conn, refund.id).revoked:
        return  # by somebody else meanwhile; the mark may be a later refund's by now
    left, lowers = _left(refund, item), False
    if item is not None and item.refund != str(refund.id):
        lowers = 0 < left < item.quantity
        if lowers:
            gateway.set_quantity(subscription, item.id, left, str(refund.id))
        elif left == 0 and not item.cancels:
            gateway.cancel_at_period_end(subscription, str(refund.id))
    with conn.transaction():
        purchases.lock(conn, refund.purchase_type, refund.tenancy, refund.purchase_id)
        purchases.set_quantity(conn, refund.tenancy, refund.purchase_id, left)
        ledger.revoked(conn, refund.id)
        least = ledger.least_quantity(conn, refund.tenancy, refund.purchase_id)
    if item is not None and lowers and least is not None and 0 < least < left == planned:
        # Somebody else settled this one while we slept, and a later refund has lowered it further, or is about to.
        gateway.set_quantity(subscription, item.id, least, str(refund.id))


def _left(refund: Refund, item: Item | None) -> int:
    """What the subscription is to keep; 0: it ends. What was bought since the refund was planned stays.

    Without a row in the database `quantity_left` is None, and only Stripe knows.
    """
    planned = refund.quantity_left
    if item is None:
        return planned or 0
    if item.refund == str(refund.id):  # Stripe has heard of it
        return 0 if planned == 0 and item.cancels else max(planned or 0, item.quantity)
    return 0 if planned == 0 else max(planned or 0, item.quantity - refund.quantity)


def _item(gateway: Gateway, subscription: str, *, only: bool) -> Item | None:
    """None where Stripe has nothing more to change."""
    try:
        item = gateway.item(subscription, only=only)
    except StateError as error:
        if error.code == "stripe-not-found":
            return None
        raise
    return None if item.ended else item


def check_item(gateway: Gateway, position: Position, asked: Sequence[Entry]) -> None:
    """Whether the quantity can be taken off a subscription, before any money moves; one call, if there is any.

    Raises StateError `quantity-differs`, `subscription-has-several-items`, `stripe-not-found`.
    """
    purchase, taken = position.purchase, sum(entry.quantity for entry in asked)
    if purchase.type != "subscription" or purchase.stripe_id is None or not taken:
        return
    partly = taken < position.quantity_left
    item = gateway.item(purchase.stripe_id, only=partly)
    if partly and item.quantity != purchase.quantity and not item.ended:
        raise StateError(
            f"subscription {purchase.id} has {purchase.quantity} in the database and {item.quantity} in Stripe",
            code="quantity-differs",
            hint="wait for Stripe's webhook, or refund the money alone with --amount",
        )

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
from stackctl.payments.refunds.balance import RefundableBalance, list_refunds
from stackctl.payments.refunds.quantity import revoke_quantity
from stackctl.payments.refunds.request import format_age, resolve_entries, to_stripe_params
from stackctl.postgres.errors import translate_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackctl.payments.gateway import Gateway, StripeRefund
    from stackctl.payments.refunds.ledger import Refund
    from stackctl.payments.refunds.request import RefundEntry, RefundRequest
    from stackctl.postgres.connect import Connection

# Stripe may forget a key after 24 hours, and would then take the same request for a new one.
RESEND_WINDOW = 23 * 3600  # seconds
LOOKUP_PAUSES = (0.5, 2.0)  # seconds before an unanswered refund is looked for


@dataclass(frozen=True)
class Outcome:
    """`problem`: why it is not settled, or why it failed."""

    refund: Refund
    problem: StackctlError | None = None


def make_idempotency_key(id_: str) -> str:
    return f"stackctl-refund-{id_}"


def find_by_request(conn: Connection, purchase: purchases.Purchase, request: RefundRequest) -> Refund | None:
    """The refund that this request has led to. Raises StateError `request-id-reused` where it asked for another."""
    if request.request_id is None:
        return None
    found = ledger.find_refunds(conn, tenancy=purchase.tenancy, request=request.request_id)
    if not found:
        return None
    same = found[0].purchase_id == purchase.id and found[0].is_full == (request.entries is None)
    if same and request.entries is not None:
        same = found[0].entries == [entry.document for entry in request.entries]
    if same and purchase.type == "subscription":
        same = found[0].invoice == purchases.find_invoice(conn, purchase, request.invoice)
    if not same:
        raise _request_reused(request, found[0])
    return found[0]


def plan_refund(
    conn: Connection, balance: RefundableBalance, entries: Sequence[RefundEntry], request: RefundRequest
) -> Refund:
    """Write the refund into the ledger; one transaction, in which the purchase's row is locked and looked at again.

    The same request's refund, if another process has written it meanwhile. Raises what `entries` does, and StateError
    `changed-meanwhile` where all that remains is not what it was.
    """
    assert balance.payment is not None
    purchase, payment = balance.purchase, balance.payment
    id_ = uuid.uuid4()
    with conn.transaction():
        purchases.lock_purchase(conn, purchase.type, purchase.tenancy, purchase.id)
        known = find_by_request(conn, purchase, request)
        if known is not None:
            return known
        again = balance.reread(conn)
        if resolve_entries(request, again) != tuple(entries) or again.purchase.quantity != purchase.quantity:
            raise StateError(
                f"{purchase.id} was changed by someone else in the meantime; nothing was refunded",
                code="changed-meanwhile",
                hint="look at `stackctl refunds preview`, and try again",
            )
        values = {
            "id": id_, "tenancy": purchase.tenancy, "purchase_type": purchase.type, "purchase_id": purchase.id,
            "customer": purchase.customer, "request_id": request.request_id, "account": balance.account,
            "livemode": payment.livemode, "intent": payment.intent, "invoice": balance.invoice,
            "subscription": purchase.stripe_id if purchase.type == "subscription" else None,
            "amount": sum(entry.amount for entry in entries), "currency": payment.currency,
            "quantity": sum(entry.quantity for entry in entries), "entries": [entry.document for entry in entries],
            "is_full": request.entries is None, "note": request.note,
            "params": to_stripe_params(balance, entries, request, str(id_)), "key": make_idempotency_key(str(id_)),
        }  # fmt: skip
        try:
            ledger.insert_refund(conn, values)
        except psycopg.errors.UniqueViolation:
            # Of another purchase, whose row is not the one that is locked, the same request was written just now.
            raise _request_reused(request) from None
    return ledger.get_refund(conn, id_)


def _request_reused(request: RefundRequest, by: Refund | None = None) -> StateError:
    return StateError(
        f"request {request.request_id} was for another refund" + (f": {by.id}" if by else ""),
        code="request-id-reused",
        hint="each refund has a request id of its own",
        details={"refund": str(by.id)} if by else {},
    )


# -- what becomes of it


def execute_refund(
    conn: Connection,
    gateway: Gateway,
    refund: Refund,
    balance: RefundableBalance | None = None,
    *,
    wait: Callable[[float], Any] = time.sleep,
) -> Outcome:
    """Send a planned refund, and find out what became of it; of another one, what `settle` does.

    `wait` is called with the seconds to wait, before a refund that Stripe has not answered is looked for.

    Raises ServiceError and StateError where Stripe refused, and the refund so failed.
    """
    if refund.status != "planned" or not ledger.mark_submitted(conn, refund.id):
        return settle_refund(conn, gateway, ledger.get_refund(conn, refund.id))
    try:
        return _send(conn, gateway, refund, balance, wait)
    except psycopg.Error as error:
        raise _not_recorded(refund, error) from error


def _send(
    conn: Connection, gateway: Gateway, refund: Refund, balance: RefundableBalance | None, wait: Callable[[float], Any]
) -> Outcome:
    try:
        stripe_refund = gateway.create_refund(refund.params, refund.key)
    except OutcomeUnknown as error:
        return _look_for_outcome(conn, gateway, refund, error, wait)
    except (ServiceError, StateError) as error:
        # It was asked but once, so nothing was done; unless somebody else resumes it at this moment.
        ledger.close_refund(conn, refund.id, "failed", error.message, first=True)
        now = ledger.get_refund(conn, refund.id)
        if now.holds_money:
            return Outcome(now, None if now.is_settled else error)
        error.details["refund"] = str(refund.id)
        raise
    return _record_sent(conn, gateway, refund, stripe_refund, balance)


def _look_for_outcome(
    conn: Connection, gateway: Gateway, refund: Refund, unknown: StackctlError, wait: Callable[[float], Any]
) -> Outcome:
    for pause in LOOKUP_PAUSES:
        wait(pause)
        try:
            outcome = settle_refund(conn, gateway, ledger.get_refund(conn, refund.id))
        except StackctlError:
            continue  # it stays unknown
        if outcome.refund.status != "submitted":
            return outcome
    return Outcome(ledger.get_refund(conn, refund.id), unknown)


def settle_refund(conn: Connection, gateway: Gateway, refund: Refund) -> Outcome:
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
        return _record(conn, gateway, refund, gateway.get_refund(refund.stripe_refund))
    found = _find_in_stripe(gateway, refund)
    if found is not None:
        return _record(conn, gateway, refund, found)
    if not refund.holds_money:
        return Outcome(refund)
    if refund.age >= RESEND_WINDOW:
        return Outcome(refund, _too_late_to_resend(refund))
    return _send_again(conn, gateway, refund)


def _settle_planned(conn: Connection, gateway: Gateway, refund: Refund) -> Outcome:
    """It was confirmed and is to happen; but not out of the blue on another day."""
    if refund.age < RESEND_WINDOW:
        return execute_refund(conn, gateway, refund)
    ledger.close_refund(conn, refund.id, "canceled", "never sent")
    return Outcome(ledger.get_refund(conn, refund.id))


def _send_again(conn: Connection, gateway: Gateway, refund: Refund) -> Outcome:
    if not ledger.mark_sent_again(conn, refund.id):
        return Outcome(ledger.get_refund(conn, refund.id))
    try:
        stripe_refund = gateway.create_refund(refund.params, refund.key)
    except OutcomeUnknown as error:
        return Outcome(refund, error)
    except StateError as error:
        # An earlier one that was done would have been answered with. Should Stripe forget that, the list does not.
        stripe_refund = _find_in_stripe(gateway, refund)
        if stripe_refund is None and error.code == "stripe-not-found":
            return Outcome(refund, error)  # it was there: this key sees something else
        if stripe_refund is None:
            ledger.close_refund(conn, refund.id, "failed", error.message)
            return Outcome(ledger.get_refund(conn, refund.id), error)
    return _record_sent(conn, gateway, refund, stripe_refund)


def give_up_refund(conn: Connection, gateway: Gateway, refund: Refund) -> Outcome:
    """Give up one that can't be sent again any more and that Stripe does not have; its money is free. Or, of one whose
    money is back, the quantity that can't be taken off the subscription.

    Raises StateError `not-to-be-canceled`.
    """
    found = settle_refund(conn, gateway, refund)
    if found.refund.status == "succeeded" and not found.refund.revoked:
        ledger.give_up_quantity(conn, refund.id)
        return Outcome(ledger.get_refund(conn, refund.id))
    if found.refund.status != "submitted" or found.refund.age < RESEND_WINDOW:
        raise StateError(
            f"refund {refund.id} is {found.refund.status}; only one that is submitted, that Stripe does not have and "
            "that is too old to be sent again can be given up, or a quantity that can't be revoked",
            code="not-to-be-canceled",
        )
    ledger.close_refund(conn, refund.id, "canceled", "Stripe does not have it; given up")
    return Outcome(ledger.get_refund(conn, refund.id))


def _too_late_to_resend(refund: Refund) -> StackctlError:
    return OutcomeUnknown(
        f"refund {refund.id} was sent {format_age(refund.age)}, and Stripe does not have it; it is too late to send it "
        "again under its key",
        code="too-late-to-resend",
        hint=f"look at payment {refund.intent} in Stripe's dashboard; if nothing was refunded, "
        f"`stackctl refunds resume {refund.id} --give-up` frees its money",
    )


def _find_in_stripe(gateway: Gateway, refund: Refund) -> StripeRefund | None:
    return next((one for one in gateway.list_refunds(refund.intent) if one.ledger_id == str(refund.id)), None)


def _record_sent(
    conn: Connection,
    gateway: Gateway,
    refund: Refund,
    stripe_refund: StripeRefund,
    balance: RefundableBalance | None = None,
) -> Outcome:
    """`_record`, of one that Stripe was just asked for: whatever goes wrong now, it was sent."""
    try:
        return _record(conn, gateway, refund, stripe_refund, balance)
    except (psycopg.Error, StackctlError) as error:
        raise _not_recorded(refund, error) from error


def _not_recorded(refund: Refund, error: psycopg.Error | StackctlError) -> OutcomeUnknown:
    why = translate_error(error, "the operated database") if isinstance(error, psycopg.Error) else error
    return OutcomeUnknown(
        f"refund {refund.id} was sent to Stripe, and what came of it could not be written down: {why.message}",
        code="refund-not-recorded",
        hint=f"run `stackctl refunds resume {refund.id}`",
        details={"refund": str(refund.id)},
    )


def _record(
    conn: Connection,
    gateway: Gateway,
    refund: Refund,
    stripe_refund: StripeRefund,
    balance: RefundableBalance | None = None,
) -> Outcome:
    """Commit what Stripe says, together with the purchase's columns; then a subscription's quantity."""
    if balance is None or _has_other_refund(balance, stripe_refund):
        balance = _read_balance(conn, gateway, refund)
    with conn.transaction():
        purchases.lock_purchase(conn, refund.purchase_type, refund.tenancy, refund.purchase_id)
        ledger.record_status(
            conn, refund.id, status=stripe_refund.status, stripe=stripe_refund.id, failure=stripe_refund.failure
        )
        now = ledger.get_refund(conn, refund.id)
        if now.status == "succeeded":
            if refund.subscription:
                ledger.fix_quantity_left(conn, refund.id)
            after = balance and balance.reread(conn)
            if after and after.is_paid_back:
                purchases.mark_refunded(conn, refund.purchase_type, refund.tenancy, refund.purchase_id, refund.invoice)
            if after and after.is_taken_back:  # of a one-time purchase
                purchases.mark_revoked(conn, refund.tenancy, refund.purchase_id)
        elif refund.status == "succeeded" and not now.holds_money:
            after = balance and balance.reread(conn)
            if after and not after.is_paid_back:
                key = (refund.purchase_type, refund.tenancy, refund.purchase_id)
                purchases.unmark_refunded(conn, *key, refund.invoice)
    now = ledger.get_refund(conn, refund.id)
    if now.status != "succeeded" or now.revoked:
        return Outcome(now)
    try:
        revoke_quantity(conn, gateway, now)
    except StackctlError as error:
        return Outcome(now, error)
    return Outcome(ledger.get_refund(conn, refund.id))


def _has_other_refund(balance: RefundableBalance, stripe_refund: StripeRefund) -> bool:
    """Whether somebody else, the dashboard say, has refunded since the balance was read."""
    return (
        stripe_refund.charge_refunded is not None
        and stripe_refund.charge_refunded > balance.refunded + stripe_refund.amount
    )


def _read_balance(conn: Connection, gateway: Gateway, refund: Refund) -> RefundableBalance | None:
    """None where the purchase is gone, and no column of it is to be written."""
    try:
        purchase = purchases.find_purchase(conn, refund.purchase_id, refund.tenancy)
    except UsageError:
        return None
    payment, stripe_refunds = gateway.get_payment(refund.intent), gateway.list_refunds(refund.intent)
    return RefundableBalance(
        purchase, refund.account, refund.invoice, payment, stripe_refunds, list_refunds(conn, purchase)
    )

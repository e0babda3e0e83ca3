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
from typing import TYPE_CHECKING, Any, Literal

import psycopg

from stackctl.core.durations import format_age
from stackctl.core.errors import OutcomeUnknown, ServiceError, StackctlError, StateError, UsageError
from stackctl.payments import purchases
from stackctl.payments.refunds import ledger
from stackctl.payments.refunds.balance import RefundableBalance, find_own, list_refunds
from stackctl.payments.refunds.quantity import check_planned, revoke_quantity
from stackctl.payments.refunds.request import resolve_entries, to_stripe_params
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
LOOKUP_DEADLINE = 10  # seconds after which it is not looked for again


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
    same = found[0].purchase_id == purchase.id and found[0].asked == request.document
    if same and purchase.type == "subscription":
        same = found[0].invoice == purchases.find_invoice(conn, purchase, request.invoice)
    if not same:
        raise _request_reused(request, found[0])
    return found[0]


def plan_refund(
    conn: Connection, balance: RefundableBalance, entries: Sequence[RefundEntry], request: RefundRequest
) -> Refund:
    """Write the refund into the ledger; one transaction, in which the purchase's row is locked and looked at again.

    The same request's refund, if another process has written it meanwhile; one that came to nothing is planned anew,
    as what it was, so that nothing can be refunded twice for it. Raises what `entries` does, and StateError
    `changed-meanwhile` where all that remains is not what it was.
    """
    assert balance.payment is not None
    purchase, payment = balance.purchase, balance.payment
    with conn.transaction():
        purchases.lock_purchase(conn, purchase.type, purchase.tenancy, purchase.id)
        known = find_by_request(conn, purchase, request)
        if known is not None and (not known.is_repeatable or find_own(known, balance.stripe_refunds)):
            return known
        id_ = known.id if known else uuid.uuid4()
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
            "is_full": request.entries is None, "note": request.note, "asked": request.document,
            "asked_by": request.by, "ends_now": request.end == "now",
            "params": to_stripe_params(balance, entries, request, str(id_)), "key": make_idempotency_key(str(id_)),
        }  # fmt: skip
        if known is not None:
            # Stripe takes a key with other parameters for a mistake.
            values["key"] = known.key if known.params == values["params"] else f"{values['key']}-{known.sends}"
            ledger.replan_refund(conn, values)
            return ledger.get_refund(conn, id_)
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
    """Send a refund that was just planned, and find out what became of it; of another one, what `settle_refund` does.

    `wait` is called with the seconds to wait, before a refund that Stripe has not answered is looked for.

    Raises ServiceError and StateError where Stripe refused. A refusal for good has failed the refund; after another
    one, too many requests say, it is as if it had never been sent, and `is_repeatable`.
    """
    sending = ledger.mark_submitted(conn, refund.id)
    if sending is None:
        return settle_refund(conn, gateway, refund)
    return _send(conn, gateway, refund, sending, balance, wait, unsent="canceled")


def _send(
    conn: Connection,
    gateway: Gateway,
    refund: Refund,
    sending: int,
    balance: RefundableBalance | None = None,
    wait: Callable[[float], Any] = time.sleep,
    *,
    unsent: Literal["planned", "canceled"],
) -> Outcome:
    """`unsent`: what it is when nothing came of it, and it was not refused for good."""
    try:
        if not refund.amount:
            return _record(conn, gateway, refund, None, balance)
        try:
            stripe_refund = gateway.create_refund(refund.params, refund.key)
        except OutcomeUnknown as error:
            return _look_for_outcome(conn, gateway, refund, error, wait)
        except (ServiceError, StateError) as error:
            # It was asked but once, so nothing was done; unless somebody else resumes it at this moment.
            if _is_final(error):
                ledger.fail_refund(conn, refund.id, error.message, sending)
            else:
                ledger.take_back(conn, refund.id, unsent, None if unsent == "planned" else error.message, sending)
            now = ledger.get_refund(conn, refund.id)
            if now.status not in ("planned", "failed", "canceled"):
                return Outcome(now, None if now.is_settled else error)
            error.details["refund"] = str(refund.id)
            error.hint = "; ".join(filter(None, (error.hint, _tell_refused(now))))
            raise
        return _record_sent(conn, gateway, refund, stripe_refund, balance)
    except psycopg.Error as error:
        raise _not_recorded(refund, error) from error


def _tell_refused(refund: Refund) -> str:
    """Under which ids it is found, and what to do with them."""
    of = f" (request {refund.request_id})" if refund.request_id else ""
    if refund.request_id and refund.is_repeatable:
        return f"the same command goes on with refund {refund.id}{of}"
    return f"`stackctl refunds show {refund.id}`{of} shows what was asked"


def _is_final(refusal: ServiceError | StateError) -> bool:
    """Whether Stripe will say the same the next time. What it does not find was there: this key sees something else."""
    return isinstance(refusal, StateError) and refusal.code != "stripe-not-found"


def _look_for_outcome(
    conn: Connection, gateway: Gateway, refund: Refund, unknown: StackctlError, wait: Callable[[float], Any]
) -> Outcome:
    began = time.monotonic()
    for pause in LOOKUP_PAUSES:
        if time.monotonic() - began > LOOKUP_DEADLINE:
            break  # Stripe is silent, and will be
        wait(pause)
        try:
            outcome = settle_refund(conn, gateway, refund)
        except StackctlError:
            continue  # it stays unknown
        if outcome.refund.status != "submitted":
            return outcome
    return Outcome(ledger.get_refund(conn, refund.id), unknown)


def settle_refund(conn: Connection, gateway: Gateway, refund: Refund, *, asked_anew: bool = False) -> Outcome:
    """Find out what became of a refund, and finish what is unfinished; safe to be done by two at once, and again.

    The refund is read again first, for others may have gone on with it. `asked_anew`: by whoever wants it, so that one
    that was planned long ago is sent all the same.

    Raises ServiceError where Stripe can't be asked, StateError `key-of-other-mode`, and of a planned one what
    `check_planned` does.
    """
    refund = _read_again(conn, refund)
    if refund.stripe_refund is not None and not refund.holds_money:
        return Outcome(refund)
    if not is_of_mode(gateway, refund):
        raise StateError(
            f"refund {refund.id} was made in {'live' if refund.livemode else 'test'} mode, and the key is a "
            f"{gateway.mode} key",
            code="key-of-other-mode",
            hint="set STRIPE_API_KEY to the platform's key of that mode",
        )
    if refund.status == "planned":
        return _settle_planned(conn, gateway, refund, asked_anew)
    if not refund.amount:
        return _record(conn, gateway, refund, None) if refund.holds_money else Outcome(refund)
    if refund.stripe_refund is not None:
        return _record(conn, gateway, refund, gateway.get_refund(refund.stripe_refund))
    found = find_own(refund, gateway.list_refunds(refund.intent, refund.noted_on))
    if found is not None:
        return _record(conn, gateway, refund, found)
    if not refund.holds_money:
        return Outcome(refund)
    return _send_again(conn, gateway, refund)


def is_of_mode(gateway: Gateway, refund: Refund) -> bool:
    """Whether the key can see the refund: live or test."""
    return (gateway.mode == "live") == refund.livemode


def _read_again(conn: Connection, refund: Refund) -> Refund:
    """As it is once nobody else is planning or recording a refund of its purchase."""
    with conn.transaction():
        purchases.lock_purchase(conn, refund.purchase_type, refund.tenancy, refund.purchase_id)
        return ledger.get_refund(conn, refund.id)


def _settle_planned(conn: Connection, gateway: Gateway, refund: Refund, asked_anew: bool) -> Outcome:
    """It was confirmed and is to happen; but not out of the blue on another day."""
    try:
        if asked_anew or refund.age < RESEND_WINDOW:
            check_planned(gateway, refund)
    except StateError as error:
        if asked_anew:  # who hears that it is refused is not to be surprised by it later
            ledger.cancel_planned(conn, refund.id, error.message, 0)
        raise
    sending = ledger.mark_submitted(conn, refund.id, None if asked_anew else RESEND_WINDOW)
    if sending is not None:
        return _send(conn, gateway, refund, sending, unsent="planned")
    if ledger.cancel_planned(conn, refund.id, "never sent", RESEND_WINDOW):
        return Outcome(ledger.get_refund(conn, refund.id))
    return settle_refund(conn, gateway, refund)  # somebody else has sent it meanwhile


def _send_again(conn: Connection, gateway: Gateway, refund: Refund) -> Outcome:
    sending = ledger.mark_sent_again(conn, refund.id, RESEND_WINDOW)
    if sending is None:
        now = ledger.get_refund(conn, refund.id)
        return Outcome(now, _too_late_to_resend(now) if now.status == "submitted" else None)
    try:
        stripe_refund = gateway.create_refund(refund.params, refund.key)
    except OutcomeUnknown as error:
        return Outcome(refund, error)
    except StateError as error:
        # An earlier one that was done would have been answered with. Should Stripe forget that, the list does not.
        stripe_refund = find_own(refund, gateway.list_refunds(refund.intent, refund.noted_on))
        if stripe_refund is None:
            if _is_final(error):
                ledger.fail_refund(conn, refund.id, error.message, sending)
            return Outcome(ledger.get_refund(conn, refund.id), error)
    return _record_sent(conn, gateway, refund, stripe_refund)


def give_up_refund(conn: Connection, gateway: Gateway, refund: Refund) -> Outcome:
    """Give up one that can't be sent again any more and that Stripe does not have; its money is free. Or, of one whose
    money is back, the quantity that can't be taken off the subscription.

    Stripe is not asked about one of test mode under a live key, nor believed where the account is not connected to the
    platform any more. Raises StateError `not-to-be-canceled`, ServiceError.
    """
    if gateway.mode == "live" and not refund.livemode:
        return _give_up(conn, refund, "of test mode, where no money moves")
    try:
        found = settle_refund(conn, gateway, refund).refund
    except ServiceError as error:
        if error.code != "account-not-connected":
            raise
        return _give_up(conn, refund, "its account is not connected any more")
    if found.status == "submitted" and found.age >= RESEND_WINDOW:
        return _give_up(conn, found, "Stripe does not have it")
    if found.status == "succeeded" and not found.revoked:
        return _give_up(conn, found, "")
    raise _not_to_be_canceled(found)


def _give_up(conn: Connection, refund: Refund, why: str) -> Outcome:
    if not ledger.give_up_quantity(conn, refund.id) and not ledger.give_up(conn, refund.id, f"given up: {why}"):
        raise _not_to_be_canceled(ledger.get_refund(conn, refund.id))
    return Outcome(ledger.get_refund(conn, refund.id))


def _not_to_be_canceled(refund: Refund) -> StateError:
    return StateError(
        f"refund {refund.id} is {refund.status}; only one that is submitted, that Stripe does not have and that is too "
        "old to be sent again can be given up, or a quantity that can't be revoked",
        code="not-to-be-canceled",
    )


def _too_late_to_resend(refund: Refund) -> StackctlError:
    return OutcomeUnknown(
        f"refund {refund.id} was sent {format_age(refund.age)}, and Stripe does not have it; it is too late to send it "
        "again under its key",
        code="too-late-to-resend",
        hint=f"look at payment {refund.intent} in Stripe's dashboard; if nothing was refunded, "
        f"`stackctl refunds resume {refund.id} --give-up` frees its money",
    )


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
    stripe_refund: StripeRefund | None,
    balance: RefundableBalance | None = None,
) -> Outcome:
    """Commit what Stripe says, together with the purchase's columns; then a subscription's quantity.

    `stripe_refund` is None where no money was asked for.
    """
    if stripe_refund is not None and not stripe_refund.has_known_status:
        return Outcome(ledger.get_refund(conn, refund.id), _unknown_status_error(refund, stripe_refund))
    if balance is None or (stripe_refund is not None and _has_other_refund(balance, stripe_refund)):
        balance = _read_balance(conn, gateway, refund)
    _write_down(conn, refund, stripe_refund, balance)
    now = ledger.get_refund(conn, refund.id)
    twice = balance.made_twice.get(str(refund.id)) if balance else None
    if now.status != "succeeded" or now.revoked:
        return Outcome(now, twice)
    try:
        revoke_quantity(conn, gateway, now)
    except StackctlError as error:
        return Outcome(now, error)
    return Outcome(ledger.get_refund(conn, refund.id), twice)


def _write_down(
    conn: Connection, refund: Refund, stripe_refund: StripeRefund | None, balance: RefundableBalance | None
) -> None:
    """Commit what Stripe says, together with the purchase's columns."""
    with conn.transaction():
        purchases.lock_purchase(conn, refund.purchase_type, refund.tenancy, refund.purchase_id)
        ledger.record_status(
            conn,
            refund.id,
            status=stripe_refund.status if stripe_refund else "succeeded",
            stripe=stripe_refund.id if stripe_refund else None,
            failure=stripe_refund.failure if stripe_refund else None,
            waits_for=stripe_refund.waits_for if stripe_refund else None,
            credit_note=stripe_refund.credit_note if stripe_refund else None,
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


def take_over_seen(conn: Connection, balance: RefundableBalance) -> Sequence[Refund]:
    """Write down what was read of the payment's refunds, and the ledger has otherwise; Stripe is not asked.

    Returns those refunds as they are now; a subscription's quantity is still to be lowered by who settles them.
    """
    found: list[Refund] = []
    for refund in balance.ledger:
        seen = balance.find_seen(refund)
        if seen is None or not seen.has_known_status or seen.status == refund.status:
            continue
        _write_down(conn, refund, seen, balance)
        now = ledger.get_refund(conn, refund.id)
        if now.status != refund.status:
            found.append(now)
    return found


def _unknown_status_error(refund: Refund, stripe_refund: StripeRefund) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"Stripe says that refund {refund.id} ({stripe_refund.id}) is {stripe_refund.status!r}, an unknown status",
        code="unknown-refund-status",
        hint="look at it in Stripe's dashboard; a newer stackctl may know the status",
    )


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

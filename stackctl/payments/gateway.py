"""Stripe's API on one connected account; the only module that knows the SDK."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import requests
import stripe

from stackctl.core.errors import ConfigError, OutcomeUnknown, ServiceError, StateError
from stackctl.core.redaction import remember_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# The one that the fields read here are of, whatever the account's own is; a new SDK asks for another one by itself.
API_VERSION = "2026-10-28.endive"
TIMEOUT = 20  # seconds for one whole answer, with all retries
WORD_AFTER = 5  # seconds of silence before a word is said
RETRIES = 2  # by the SDK, under one idempotency key
REFUND_ID = "stackctl_refund_id"  # the metadata by which a refund is found again
_STRIPE = "https://api.stripe.com"
_NO_ANSWER = "not an answer of its API"
_MAX_MESSAGE = 200  # characters of what Stripe says
_MALFORMED = (AttributeError, KeyError, TypeError, ValueError)  # of an answer that lacks what Stripe's have
_WON_STATUSES = ("won", "warning_closed", "prevented")  # statuses of disputes
_INQUIRY = "warning_"  # so begin those of a bank's question, by which no money is withdrawn
_CODES = {
    "charge_already_refunded": "already-refunded",
    "charge_disputed": "charge-disputed",
    "resource_missing": "stripe-not-found",
}


@dataclass(frozen=True)
class Payment:
    """A payment intent. `received`: what was really charged, in the currency's smallest unit; `disputed`: and the
    dispute not won; `inquired`: the bank has only asked, and the money can be refunded."""

    intent: str
    received: int
    currency: str
    disputed: bool
    livemode: bool
    created_at: datetime
    inquired: bool = False


@dataclass(frozen=True)
class StripeRefund:
    """A refund as Stripe has it. `ledger_id`: the id that it carries in its metadata. Status `requires_action` counts
    as pending: the customer has still to do something; a status of Stripe's that is newer than this stands as it is.
    `charge_refunded`: what all refunds of its charge came to when it was made, if that was asked for. `waits_for`: of a
    pending one what Stripe tells: `reason`, `next_action` and `instructions_email`. `credit_note`: the id of the one
    that it was made with, if that was asked for."""

    id: str
    intent: str | None
    ledger_id: str | None
    amount: int
    currency: str
    status: str
    failure: str | None
    created_at: datetime
    charge_refunded: int | None = None
    credit_note: str | None = None
    waits_for: dict[str, Any] | None = None

    @property
    def holds_money(self) -> bool:
        return self.status not in ("failed", "canceled")

    @property
    def has_known_status(self) -> bool:
        return self.status in ("pending", "succeeded", "failed", "canceled")


class _Session(requests.Session):
    """An answer comes as a whole within TIMEOUT, however slowly its bytes come and however often it is asked for, or
    not at all; and from the address that was asked: a redirect is an answer like another.

    `tell` hears of a long silence; `take_turn` waits until something may be asked.
    """

    def __init__(self, tell: Callable[[str], None], take_turn: Callable[[], None]) -> None:
        super().__init__()
        self._tell, self._take_turn = tell, take_turn
        self._calls = threading.local()  # `until`: when the call of this thread has lasted TIMEOUT

    def begin_call(self) -> None:
        self._take_turn()
        self._calls.until = time.monotonic() + TIMEOUT

    def request(self, *where: Any, **named: Any) -> requests.Response:
        ended: queue.SimpleQueue[requests.Response | Exception] = queue.SimpleQueue()

        def ask() -> None:
            try:
                ended.put(super(_Session, self).request(*where, **named | {"allow_redirects": False}))
            except Exception as error:  # noqa: BLE001, raised by who waits
                ended.put(error)

        threading.Thread(target=ask, daemon=True).start()
        found = self._await(ended)
        if isinstance(found, Exception):
            raise found
        return found

    def _await(self, ended: queue.SimpleQueue[requests.Response | Exception]) -> requests.Response | Exception:
        left = self._calls.until - time.monotonic()
        try:
            return ended.get(timeout=max(0.001, min(left, WORD_AFTER)))
        except queue.Empty:
            pass
        if left > WORD_AFTER:
            self._tell(f"Stripe has not answered for {WORD_AFTER} seconds; it has {TIMEOUT} in all")
        try:
            return ended.get(timeout=max(0.001, self._calls.until - time.monotonic()))
        except queue.Empty:
            # Not one of those after which the SDK asks again.
            return requests.RequestException(f"no whole answer within {TIMEOUT} seconds")


class _Client(stripe.RequestsClient):
    """Each call, with all its retries, has one deadline."""

    def __init__(self, session: _Session) -> None:
        super().__init__(timeout=TIMEOUT, session=session)
        self._begin_call = session.begin_call

    def request_with_retries(self, *call: Any, **named: Any) -> Any:
        self._begin_call()
        return super().request_with_retries(*call, **named)


@dataclass(frozen=True)
class SubscriptionItem:
    """What a subscription is for. `ends_with_period`: or earlier; `ended`: Stripe changes nothing of it any more;
    `last_refund_id`: of the last refund for which it was changed. `schedule`: the id of the one that manages it;
    `awaits_update`: a change waits for its payment; `metered`: what is used is counted, and nothing is bought."""

    id: str
    quantity: int
    ends_with_period: bool
    ended: bool
    last_refund_id: str | None
    schedule: str | None
    awaits_update: bool
    metered: bool


class Gateway:
    """Calls with the platform's key on a connected account, or on the platform's own.

    Raises ServiceError where Stripe can't be reached or refuses the key, StateError for what it refuses to do, and
    OutcomeUnknown where a change was sent and not answered.
    """

    api_version = API_VERSION

    def __init__(
        self,
        key: str,
        base: str | None,
        account: str | None,
        tell: Callable[[str], None] = lambda text: None,
        take_turn: Callable[[], None] = lambda: None,
    ) -> None:
        """`tell` hears of a long silence; `take_turn` waits until a call may be made."""
        remember_secret(key)
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(
                "the Stripe key holds spaces, line ends or letters that no key has",
                code="bad-stripe-key",
                hint="copy it again into payments.stripe_api_key, or STRIPE_API_KEY",
            )
        session = _Session(tell, take_turn)
        if base and base.startswith("http://127.0.0.1:"):
            session.trust_env = False  # a stand-in on this machine is behind no proxy
        addresses: Any = {"api": base.rstrip("/")} if base else {}
        try:
            self._client = stripe.StripeClient(
                key, base_addresses=addresses, http_client=_Client(session), max_network_retries=RETRIES,
                stripe_version=API_VERSION,
            )  # fmt: skip
        except stripe.AuthenticationError as error:
            raise _key_refused(error) from None
        # It writes a file with the timing of the last request otherwise.
        stripe.enable_telemetry = False
        self._session, self._key, self._base = session, key, (base or _STRIPE).rstrip("/")
        self._account_options: Any = {"stripe_account": account} if account else {}
        self.mode = "live" if "_live_" in key else "test"

    def get_key_holder(self) -> tuple[str, str | None, str | None]:
        """The id of the account that the key is of; the API version that answers what is asked in API_VERSION, and the
        account's own, in which it gets its events. None: the answer does not say."""
        with _read_errors():
            found: Any = self._client.v1.accounts.retrieve_current(None, self._account_options)
            id_ = _check_answer(found, "account")["id"]
            headers = found.last_response.headers if found.last_response else {}
            return id_, headers.get("Stripe-Version"), self._get_own_version()

    def _get_own_version(self) -> str | None:
        """Asked without a version, which the SDK can't."""
        self._session.begin_call()
        try:
            answer = self._session.get(f"{self._base}/v1/account", headers={"Authorization": f"Bearer {self._key}"})
        except requests.RequestException:
            return None
        return answer.headers.get("Stripe-Version") if answer.ok else None

    def get_account(self, id_: str) -> Mapping[str, Any]:
        with _read_errors():
            return _check_answer(self._client.v1.accounts.retrieve(id_), "account")

    def list_configurations(self) -> Sequence[Mapping[str, Any]]:
        """All payment method configurations, of all pages of the list."""
        with _read_errors():
            first = self._client.v1.payment_method_configurations.list({"limit": 100}, self._account_options)
            return _read_all_pages(first, "payment_method_configuration")

    def get_configuration(self, id_: str) -> Mapping[str, Any]:
        with _read_errors():
            found = self._client.v1.payment_method_configurations.retrieve(id_, None, self._account_options)
            return _check_answer(found, "payment_method_configuration")

    def set_preferences(self, id_: str, states: Mapping[str, bool]) -> None:
        """Ask for methods on or off, in one request."""
        params: Any = {
            method: {"display_preference": {"preference": "on" if on else "off"}} for method, on in states.items()
        }
        with _write_errors():
            self._client.v1.payment_method_configurations.update(
                id_, params, self._account_options | {"idempotency_key": str(uuid.uuid4())}
            )

    def get_payment(self, intent: str) -> Payment:
        with _read_errors():
            found = self._client.v1.payment_intents.retrieve(
                intent, {"expand": ["latest_charge"]}, self._account_options
            )
            return self._to_payment(_check_answer(found, "payment_intent"))

    def list_invoice_payments(self, invoice: str) -> Sequence[Payment]:
        """The paid payments of an invoice; one, unless it was paid in parts."""
        params: Any = {"invoice": invoice, "status": "paid", "limit": 100,
                       "expand": ["data.payment.payment_intent.latest_charge"]}  # fmt: skip
        with _read_errors():
            listed = self._client.v1.invoice_payments.list(params, self._account_options)
            held = [one["payment"] for one in _read_all_pages(listed, "invoice_payment")]
            return [self._to_payment(one["payment_intent"]) for one in held if one.get("payment_intent")]

    def _to_payment(self, found: Mapping[str, Any]) -> Payment:
        charge: Any = found.get("latest_charge") or {}
        statuses = self._list_dispute_statuses(found["id"]) if charge.get("disputed") else None
        blocking = ("unknown",) if statuses == [] else [one for one in statuses or () if one not in _WON_STATUSES]
        return Payment(
            intent=found["id"],
            received=found.get("amount_received") or 0,
            currency=found["currency"],
            disputed=any(not one.startswith(_INQUIRY) for one in blocking),
            inquired=any(one.startswith(_INQUIRY) for one in blocking),
            livemode=bool(found.get("livemode")),
            created_at=datetime.fromtimestamp(found["created"], UTC),
        )

    def _list_dispute_statuses(self, intent: str) -> list[str]:
        """Of all its disputes: its charge stays `disputed` when they have ended. Empty: the key may not see them."""
        try:
            listed = self._client.v1.disputes.list({"payment_intent": intent, "limit": 100}, self._account_options)
            return [one["status"] for one in _read_all_pages(listed, "dispute")]
        except stripe.PermissionError:
            return []

    def list_refunds(self, intent: str, noted_on: str | None = None) -> Sequence[StripeRefund]:
        """All refunds of a payment intent, whoever made them. `noted_on`: the invoice whose credit notes are read, too:
        what is made with one carries no metadata, and the note does."""
        found = self._list_refunds({"payment_intent": intent})
        if noted_on is None:
            return found
        params: Any = {"invoice": noted_on, "limit": 100}
        with _read_errors():
            listed = self._client.v1.credit_notes.list(params, self._account_options)
            notes = {each["refund"]: one for one in _read_all_pages(listed, "credit_note") for each in one["refunds"]}
        return [_mark_noted(one, notes[one.id]) if one.id in notes else one for one in found]

    def list_refunds_since(self, since: datetime | None) -> Sequence[StripeRefund]:
        """All refunds of the account that were made since then, or ever."""
        return self._list_refunds({"created": {"gte": int(since.timestamp())}} if since else {})

    def _list_refunds(self, params: Any) -> Sequence[StripeRefund]:
        params["limit"] = 100
        with _read_errors():
            listed = self._client.v1.refunds.list(params, self._account_options)
            return [_to_stripe_refund(one) for one in _read_all_pages(listed, "refund")]

    def get_refund(self, id_: str) -> StripeRefund:
        with _read_errors():
            return _to_stripe_refund(
                _check_answer(self._client.v1.refunds.retrieve(id_, None, self._account_options), "refund")
            )

    def find_intent(self, id_: str) -> str | None:
        """The payment intent of a charge or of a refund."""
        with _read_errors():
            if id_.startswith(("re_", "pyr_")):
                return self.get_refund(id_).intent
            found = _check_answer(self._client.v1.charges.retrieve(id_, None, self._account_options), "charge")
            return found.get("payment_intent")

    def find_invoice(self, intent: str) -> str | None:
        """The invoice that a payment intent has paid."""
        params: Any = {"payment": {"type": "payment_intent", "payment_intent": intent}, "limit": 1}
        with _read_errors():
            listed = _check_answer(self._client.v1.invoice_payments.list(params, self._account_options), "list")
            return next((one["invoice"] for one in listed["data"]), None)

    def get_customer(self, id_: str) -> str | None:
        """The backend's id of a customer of Stripe's, who may be deleted there."""
        with _read_errors():
            found = _check_answer(self._client.v1.customers.retrieve(id_, None, self._account_options), "customer")
            return (found.get("metadata") or {}).get("customerId")

    def preview_credit_note(self, params: Mapping[str, Any]) -> None:
        """Whether Stripe would make it. Raises StateError where it would not."""
        given: Any = {name: value for name, value in params.items() if name != "expand"}
        with _read_errors():
            _check_answer(self._client.v1.credit_notes.preview(given, self._account_options), "credit_note")

    def create_refund(self, params: Mapping[str, Any], key: str) -> StripeRefund:
        """Ask once, without a retry, so that a refusal means that nothing was done. With a `refund_amount` it is a
        credit note that is asked for, and the refund that Stripe makes with it."""
        given: Any = params
        once = self._account_options | {"idempotency_key": key, "max_network_retries": 0}
        with _write_errors():
            if "refund_amount" in params:
                note = _check_answer(self._client.v1.credit_notes.create(given, once), "credit_note")
                (made,) = note["refunds"]
                return _mark_noted(_to_stripe_refund(made["refund"]), note)
            return _to_stripe_refund(_check_answer(self._client.v1.refunds.create(given, once), "refund"))

    def get_subscription_item(self, subscription: str, *, only: bool = True) -> SubscriptionItem:
        """The subscription's item. Raises StateError `subscription-has-several-items` if it is to be the only one."""
        with _read_errors():
            found = _check_answer(
                self._client.v1.subscriptions.retrieve(subscription, None, self._account_options), "subscription"
            )
            items = found["items"]["data"]
            ended = found.get("status") in ("canceled", "incomplete_expired")
            if len(items) != 1 and ((only and not ended) or not items):
                raise StateError(
                    f"subscription {subscription} has {len(items)} items: whose quantity is meant is not known, and "
                    "all would end with it",
                    code="subscription-has-several-items",
                    hint="refund the money alone with --amount, and change or end the items in Stripe's dashboard",
                )
            ends, period = found.get("cancel_at"), items[0].get("current_period_end")
            schedule: Any = found.get("schedule")
            recurring: Any = (items[0].get("price") or {}).get("recurring") or {}
            return SubscriptionItem(
                id=items[0]["id"],
                quantity=items[0].get("quantity") or 0,
                ends_with_period=bool(found.get("cancel_at_period_end")) or (bool(ends) and ends <= (period or ends)),
                ended=ended,
                last_refund_id=(found.get("metadata") or {}).get(REFUND_ID),
                schedule=schedule["id"] if isinstance(schedule, dict) else schedule,
                awaits_update=bool(found.get("pending_update")),
                metered=recurring.get("usage_type") == "metered",
            )

    def release_schedule(self, schedule: str) -> None:
        """End the schedule; its subscription goes on as it is."""
        with _write_errors():
            found = self._client.v1.subscription_schedules.release(
                schedule, None, self._account_options | {"idempotency_key": str(uuid.uuid4())}
            )
            _check_answer(found, "subscription_schedule")

    def set_quantity(self, subscription: str, item: str, quantity: int, refund: str) -> None:
        """Without prorating: the period's price stays what it was."""
        self._update_subscription(
            subscription, {"items": [{"id": item, "quantity": quantity}], "proration_behavior": "none"}, refund
        )

    def cancel_at_period_end(self, subscription: str, refund: str) -> None:
        self._update_subscription(subscription, {"cancel_at_period_end": True}, refund)

    def cancel_now(self, subscription: str) -> None:
        """End it at once, without a last invoice or a credit for the rest of its period."""
        with _write_errors():
            found = self._client.v1.subscriptions.cancel(subscription, None, self._account_options)
            _check_answer(found, "subscription")

    def _update_subscription(self, subscription: str, params: Any, refund: str) -> None:
        """In the same update as its change, the subscription comes to carry the id of the refund that it is for."""
        params |= {"metadata": {REFUND_ID: refund}}
        with _write_errors():
            found = self._client.v1.subscriptions.update(
                subscription, params, self._account_options | {"idempotency_key": str(uuid.uuid4())}
            )
            _check_answer(found, "subscription")


def _check_answer(found: Any, kind: str) -> dict[str, Any]:
    """An answer, once it is sure that it is one: what stands between may answer with JSON of its own."""
    if not isinstance(found, stripe.StripeObject) or getattr(found, "object", None) != kind:
        raise stripe.APIError(_NO_ANSWER)
    return cast("dict[str, Any]", found.to_dict())


def _read_all_pages(page: Any, kind: str) -> list[dict[str, Any]]:
    """What a list holds, on all its pages."""
    found: list[dict[str, Any]] = []
    while True:
        document = _check_answer(page, "list")
        found += [_check_answer(one, kind) for one in page.data]
        if not document["has_more"]:
            return found
        page = page.next_page()


def _to_stripe_refund(found: Mapping[str, Any]) -> StripeRefund:
    status, charge = found.get("status") or "pending", found.get("charge")
    return StripeRefund(
        id=found["id"],
        intent=found.get("payment_intent"),
        ledger_id=(found.get("metadata") or {}).get(REFUND_ID),
        amount=found["amount"],
        currency=found["currency"],
        status="pending" if status == "requires_action" else status,
        failure=found.get("failure_reason"),
        created_at=datetime.fromtimestamp(found["created"], UTC),
        charge_refunded=charge.get("amount_refunded") if isinstance(charge, dict) else None,
        waits_for=_to_waits_for(found) if status in ("pending", "requires_action") else None,
    )


def _mark_noted(refund: StripeRefund, note: Mapping[str, Any]) -> StripeRefund:
    return replace(refund, ledger_id=(note.get("metadata") or {}).get(REFUND_ID), credit_note=note["id"])


def _to_waits_for(found: Mapping[str, Any]) -> dict[str, Any] | None:
    told = {
        "reason": found.get("pending_reason"),
        "next_action": found.get("next_action"),
        "instructions_email": found.get("instructions_email"),
    }
    return told if any(told.values()) else None


@contextmanager
def _read_errors() -> Iterator[None]:
    try:
        yield
    except stripe.StripeError as error:
        raise _translate(error) from None
    except _MALFORMED:
        raise _translate(stripe.APIError(_NO_ANSWER)) from None


@contextmanager
def _write_errors() -> Iterator[None]:
    try:
        yield
    except (stripe.APIConnectionError, stripe.IdempotencyError, stripe.APIError, *_MALFORMED) as error:
        said = _error_text(error) if isinstance(error, stripe.StripeError) else _NO_ANSWER
        raise OutcomeUnknown(
            f"Stripe was asked and did not answer: {said}; whether it was done is not known",
            code="stripe-unanswered",
            hint="look at it again, and repeat the command if it was not",
        ) from None
    except stripe.StripeError as error:
        raise _translate(error) from None


def _translate(error: stripe.StripeError) -> ServiceError | StateError | ConfigError:
    match error:
        case stripe.AuthenticationError():
            return _key_refused(error)
        case stripe.PermissionError() if error.error and error.error.code == "account_invalid":
            return ServiceError(
                f"Stripe does not let this key act for the account: {_error_text(error)}",
                code="account-not-connected",
                hint="connect the account again, or use the key of the platform that it is connected to",
            )
        case stripe.PermissionError():
            return ServiceError(
                f"Stripe does not let this key do that: {_error_text(error)}",
                code="stripe-forbidden",
                hint="use a key with the permission, of the platform that the account is connected to",
            )
        case stripe.RateLimitError():
            return ServiceError(
                "Stripe has too many requests just now", code="stripe-busy", hint="try again in a minute"
            )
        case stripe.APIConnectionError():
            return ServiceError(
                f"Stripe can't be reached: {_error_text(error)}",
                code="stripe-unreachable",
                hint="check the network, try again",
            )
        case stripe.InvalidRequestError() | stripe.IdempotencyError() | stripe.CardError():
            code = _CODES.get(error.code or "", "stripe-refused")
            hint = "is the key of the right mode, and of the platform?" if code == "stripe-not-found" else None
            return StateError(f"Stripe refuses: {_error_text(error)}", code=code, hint=hint)
        case _:
            text = _error_text(error)
            hint = "see status.stripe.com"
            if text == _NO_ANSWER:  # a page, say: somebody else has answered
                hint = f"is payments.stripe_api_base, if it is set, the address of Stripe's API? If not, {hint}"
            return ServiceError(f"Stripe failed: {text}", code="stripe-failed", hint=hint)


def _key_refused(error: stripe.StripeError) -> ServiceError:
    return ServiceError(
        f"Stripe does not accept the key: {_error_text(error)}",
        code="stripe-key-refused",
        hint="set payments.stripe_api_key, or STRIPE_API_KEY, to a secret key of the platform",
    )


def _error_text(error: stripe.StripeError) -> str:
    """Its message in one line, without what a proxy wrote into a page."""
    text = " ".join((error.user_message or str(error)).split())
    if "<html" in text.lower():
        return _NO_ANSWER
    _, _, network = text.partition("(Network error: ")  # behind a long request to write to Stripe's support
    text = network.removesuffix(")").removeprefix("RequestException: ") or text
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "…"

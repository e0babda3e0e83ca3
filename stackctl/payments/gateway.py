"""Stripe's API on one connected account; the only module that knows the SDK."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import stripe

from stackctl.errors import ConfigError, OutcomeUnknown, ServiceError, StateError
from stackctl.redaction import remember

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TIMEOUT = 20  # seconds for one answer
RETRIES = 2  # by the SDK, under one idempotency key


class Gateway:
    """Calls with the platform's key on a connected account.

    Raises ServiceError where Stripe can't be reached or refuses the key, StateError for what it refuses to do, and
    OutcomeUnknown where a change was sent and not answered.
    """

    def __init__(self, key: str, base: str | None, account: str) -> None:
        remember(key)
        http = stripe.RequestsClient(timeout=TIMEOUT)
        addresses: Any = {"api": base.rstrip("/")} if base else {}
        try:
            self._client = stripe.StripeClient(
                key, base_addresses=addresses, http_client=http, max_network_retries=RETRIES
            )
        except stripe.AuthenticationError as error:
            raise _no_key(error) from None
        # It writes a file with the timing of the last request otherwise.
        stripe.enable_telemetry = False
        self._on: Any = {"stripe_account": account}
        self.mode = "live" if "_live_" in key else "test"

    def account(self, id_: str) -> Mapping[str, Any]:
        with _reading():
            return cast("dict[str, Any]", self._client.v1.accounts.retrieve(id_).to_dict())

    def configurations(self) -> Sequence[Mapping[str, Any]]:
        """All payment method configurations, of all pages of the list."""
        with _reading():
            first = self._client.v1.payment_method_configurations.list({"limit": 100}, self._on)
            return [cast("dict[str, Any]", one.to_dict()) for one in first.auto_paging_iter()]

    def configuration(self, id_: str) -> Mapping[str, Any]:
        with _reading():
            found = self._client.v1.payment_method_configurations.retrieve(id_, None, self._on)
            return cast("dict[str, Any]", found.to_dict())

    def prefer(self, id_: str, wanted: Mapping[str, bool]) -> None:
        """Ask for methods on or off, in one request."""
        params: Any = {
            method: {"display_preference": {"preference": "on" if on else "off"}} for method, on in wanted.items()
        }
        with _writing():
            self._client.v1.payment_method_configurations.update(
                id_, params, self._on | {"idempotency_key": str(uuid.uuid4())}
            )


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except stripe.StripeError as error:
        raise _translated(error) from None


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except (stripe.APIConnectionError, stripe.APIError) as error:
        raise OutcomeUnknown(
            f"Stripe was asked and did not answer: {_said(error)}; whether it was done is not known",
            code="stripe-unanswered",
            hint="look at it again, and repeat the command if it was not",
        ) from None
    except stripe.StripeError as error:
        raise _translated(error) from None


def _translated(error: stripe.StripeError) -> ServiceError | StateError | ConfigError:
    match error:
        case stripe.AuthenticationError():
            return _no_key(error)
        case stripe.PermissionError():
            return ServiceError(
                f"Stripe does not let this key do that: {_said(error)}",
                code="stripe-forbidden",
                hint="use a key with the permission, of the platform that the account is connected to",
            )
        case stripe.RateLimitError():
            return ServiceError(
                "Stripe has too many requests just now", code="stripe-busy", hint="try again in a minute"
            )
        case stripe.APIConnectionError():
            return ServiceError(
                f"Stripe can't be reached: {_said(error)}",
                code="stripe-unreachable",
                hint="check the network, try again",
            )
        case stripe.InvalidRequestError() | stripe.IdempotencyError() | stripe.CardError():
            return StateError(f"Stripe refuses: {_said(error)}", code="stripe-refused")
        case _:
            return ServiceError(f"Stripe failed: {_said(error)}", code="stripe-failed", hint="see status.stripe.com")


def _no_key(error: stripe.StripeError) -> ServiceError:
    return ServiceError(
        f"Stripe does not accept the key: {_said(error)}",
        code="stripe-key-refused",
        hint="set payments.stripe_api_key, or STRIPE_API_KEY, to a secret key of the platform",
    )


def _said(error: stripe.StripeError) -> str:
    """Its message in one line, without what a proxy wrote into a page."""
    text = " ".join((error.user_message or str(error)).split())
    return "not an answer of its API" if "<html" in text.lower() else text[:200]

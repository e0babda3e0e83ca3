"""The gateway, answered with JSON that is not Stripe's."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from stackctl.core.errors import OutcomeUnknown, ServiceError
from stackctl.payments.gateway import Gateway
from tests.stripe_fake.server import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.quick

ODD = (
    "", "null", "[]", '"x"', "1", "{}", '{"object": "list"}', '{"object": "refund"}', '{"object": "subscription"}',
    '{"object": "payment_intent"}', '{"object": "list", "data": [{}], "has_more": false}',
    '{"object": "list", "data": [{"object": "refund"}], "has_more": false}',
    '{"object": "list", "data": null, "has_more": false}', '{"object": "list", "data": []}',
    '{"object": "refund", "id": "re_1", "amount": 1, "currency": "usd", "created": "now"}',
    '{"object": "subscription", "items": {"data": [{}]}}',
)  # fmt: skip
READS: dict[str, Callable[[Gateway], object]] = {
    "payment": lambda on: on.get_payment("pi_1"),
    "paid_by": lambda on: on.list_invoice_payments("in_1"),
    "refunds": lambda on: on.list_refunds("pi_1"),
    "refund_made": lambda on: on.get_refund("re_1"),
    "item": lambda on: on.get_subscription_item("sub_1"),
    "key_holder": lambda on: on.get_key_holder(),
    "account": lambda on: on.get_account("acct_1"),
    "configurations": lambda on: on.list_configurations(),
    "configuration": lambda on: on.get_configuration("pmc_1"),
}


@pytest.fixture
def answering() -> Iterator[Callable[[str], Gateway]]:
    """Says what is answered from now on."""
    said = ""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said.encode())

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    on = Gateway(KEY, f"http://127.0.0.1:{server.server_port}", None)

    def answers(text: str) -> Gateway:
        nonlocal said
        said = text
        return on

    yield answers
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("read", READS)
def test_what_is_read_is_not_taken_for_an_answer(answering: Callable[[str], Gateway], read: str) -> None:
    for odd in ODD:
        with pytest.raises(ServiceError) as caught:
            READS[read](answering(odd))
        assert caught.value.code == "stripe-failed", odd


def test_a_refund_may_have_been_made(answering: Callable[[str], Gateway]) -> None:
    for odd in ODD:
        with pytest.raises(OutcomeUnknown):
            answering(odd).create_refund({"payment_intent": "pi_1", "amount": 1}, "key")

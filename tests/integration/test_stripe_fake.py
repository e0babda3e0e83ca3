"""The fake Stripe behaves as the real one does to the real SDK: what all other tests of payments stand on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import stripe

from tests.stripe_fake import Running, running
from tests.stripe_fake.faults import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ACCOUNT = "acct_shop"
MINE: Any = {"stripe_account": ACCOUNT}
# What the SDK takes for an answer; a redirect, because it follows it.
UNHARMED = ("delay", "slow-bytes", "302", "empty-200")


@pytest.fixture
def fake() -> Iterator[Running]:
    with running() as found:
        found.state.add("account", id=ACCOUNT)
        yield found


def client(fake: Running, key: str = "sk_test_fake", **options: Any) -> stripe.StripeClient:
    http = stripe.RequestsClient(timeout=5)
    return stripe.StripeClient(key, base_addresses={"api": fake.url}, http_client=http, **options)


def refund(fake: Running, params: Any, key: str | None = None) -> Any:
    options = MINE | ({"idempotency_key": key} if key else {})
    return client(fake).v1.refunds.create(params, options)


# -- refunds


def test_live_and_test_mode_see_nothing_of_each_other(fake: Running) -> None:
    """A refund does not say of which mode it is; nor is an idempotency key shared."""
    live, test = (fake.state.payment(ACCOUNT, livemode=mode)["id"] for mode in (True, False))
    on_live = client(fake, "sk_live_fake")
    made = on_live.v1.refunds.create({"payment_intent": live}, MINE | {"idempotency_key": "k"})
    refund(fake, {"payment_intent": test}, "k")
    with pytest.raises(stripe.InvalidRequestError):
        client(fake).v1.refunds.retrieve(made.id, None, MINE)
    assert [one.payment_intent for one in client(fake).v1.refunds.list(None, MINE)] == [test]
    assert [one.payment_intent for one in on_live.v1.refunds.list(None, MINE)] == [live]


def test_objects_have_the_current_fields(fake: Running) -> None:
    with pytest.raises(ValueError, match="has no subscription"):
        fake.state.add("invoice", ACCOUNT, subscription="sub_1")
    parent = {"type": "subscription_details", "subscription_details": {"subscription": "sub_1"}}
    id_ = fake.state.add("invoice", ACCOUNT, parent=parent, livemode=False)["id"]
    fake.state.add("invoice", ACCOUNT, livemode=False)
    assert [one.id for one in client(fake).v1.invoices.list({"subscription": "sub_1"}, MINE)] == [id_]
    assert not hasattr(client(fake).v1.invoices.retrieve(id_, None, MINE), "subscription")


def test_refunds_take_what_is_left_and_no_more(fake: Running) -> None:
    intent = fake.state.payment(ACCOUNT, 1999)["id"]
    assert refund(fake, {"payment_intent": intent, "amount": 500, "metadata": {"a": "b"}}).metadata["a"] == "b"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        refund(fake, {"payment_intent": intent, "amount": 1500})
    assert (caught.value.http_status, caught.value.param, caught.value.code) == (400, "amount", None)
    assert refund(fake, {"payment_intent": intent}).amount == 1499
    with pytest.raises(stripe.InvalidRequestError) as caught:
        refund(fake, {"payment_intent": intent, "amount": 1})
    assert caught.value.code == "charge_already_refunded"
    assert fake.state.refunded(ACCOUNT, intent) == 1999


def test_refunds_that_failed_hold_nothing_and_pending_ones_do(fake: Running) -> None:
    intent = fake.state.payment(ACCOUNT, 1000)["id"]
    fake.state.next_statuses.extend(["failed", "pending"])
    assert refund(fake, {"payment_intent": intent}).status == "failed"
    assert refund(fake, {"payment_intent": intent}).status == "pending"
    with pytest.raises(stripe.InvalidRequestError):
        refund(fake, {"payment_intent": intent})


def test_a_disputed_charge_is_not_refunded(fake: Running) -> None:
    intent = fake.state.payment(ACCOUNT)
    fake.state.get("charge", ACCOUNT, intent["latest_charge"], False)["disputed"] = True
    with pytest.raises(stripe.InvalidRequestError) as caught:
        refund(fake, {"payment_intent": intent["id"]})
    assert caught.value.code == "charge_disputed"


@pytest.mark.parametrize(
    ("params", "place"),
    [
        ({"payment_intent": "PI", "amount": 5.5}, "amount"),
        ({"payment_intent": "PI", "amount": 0}, "amount"),
        ({"payment_intent": "PI", "amount": "1e3"}, "amount"),
        ({"payment_intent": "PI", "amonut": 5}, "amonut"),
        ({"payment_intent": "PI", "reason": "because"}, "reason"),
        ({"payment_intent": "pi_nowhere"}, "id"),
        ({"amount": 5}, "payment_intent"),
    ],
)
def test_what_stripe_does_not_take_is_refused(fake: Running, params: dict[str, Any], place: str) -> None:
    intent = fake.state.payment(ACCOUNT)["id"]
    params = {name: intent if value == "PI" else value for name, value in params.items()}
    with pytest.raises(stripe.InvalidRequestError) as caught:
        refund(fake, params)
    assert caught.value.param == place
    assert fake.state.refunded(ACCOUNT, intent) == 0


# -- idempotency


def test_a_key_is_answered_once(fake: Running) -> None:
    intent = fake.state.payment(ACCOUNT)["id"]
    first, again = (refund(fake, {"payment_intent": intent, "amount": 5}, "k") for _ in range(2))
    assert first.id == again.id
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    with pytest.raises(stripe.IdempotencyError):
        refund(fake, {"payment_intent": intent, "amount": 6}, "k")
    fake.state.add("account", id="acct_other")
    other = fake.state.payment("acct_other")["id"]
    found = client(fake).v1.refunds.create(
        {"payment_intent": other}, {"stripe_account": "acct_other", "idempotency_key": "k"}
    )
    assert found.payment_intent == other
    assert fake.state.refunded(ACCOUNT, intent) == 5


def test_sixteen_at_once_under_one_key_are_one_refund(fake: Running) -> None:
    intent = fake.state.payment(ACCOUNT)["id"]
    answers: list[str] = []

    def send() -> None:
        try:
            answers.append(refund(fake, {"payment_intent": intent, "amount": 700}, "k").id)
        except stripe.StripeError as error:
            assert error.error is not None
            answers.append(str(error.error.code))

    threads = [threading.Thread(target=send) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) <= {next(one for one in answers if one.startswith("re_")), "idempotency_key_in_use"}
    assert fake.state.refunded(ACCOUNT, intent) == 700


# -- faults


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in UNHARMED])
def test_a_fault_strikes_once_and_says_how_far_it_came(fake: Running, kind: Any) -> None:
    intent = fake.state.payment(ACCOUNT)["id"]
    fake.fault(kind, nth=2, method="POST", path="/v1/refunds")
    refund(fake, {"payment_intent": intent, "amount": 1}, "first")
    with pytest.raises(stripe.StripeError) as caught:
        refund(fake, {"payment_intent": intent, "amount": 100}, "second")
    status = int(number[0]) if (number := re.search("[1-5][0-9]{2}", kind)) else None
    assert caught.value.http_status == status
    committed = kind in ("drop-after", "500-after", "html-502")
    expected = 101 if kind in ("drop-after", "500-after") else 1
    assert fake.state.refunded(ACCOUNT, intent) == expected
    if kind == "500-after":
        with pytest.raises(stripe.APIError):  # which Stripe keeps, and gives again
            refund(fake, {"payment_intent": intent, "amount": 100}, "second")
    else:
        refund(fake, {"payment_intent": intent, "amount": 100}, "second")
    assert fake.state.refunded(ACCOUNT, intent) == 101
    assert [call.status for call in fake.calls("POST", "/v1/refunds")][1] == (status or 0)
    assert committed or expected == 1


def test_an_answer_without_anything_in_it(fake: Running) -> None:
    intent = fake.state.payment(ACCOUNT)["id"]
    fake.fault("empty-200", method="POST")
    assert refund(fake, {"payment_intent": intent, "amount": 5}, "key").to_dict() == {}
    assert refund(fake, {"payment_intent": intent, "amount": 5}, "key").amount == 5
    assert fake.state.refunded(ACCOUNT, intent) == 5


def test_the_sdk_tries_again_under_the_same_key(fake: Running) -> None:
    intent = fake.state.payment(ACCOUNT)["id"]
    fake.fault("drop-after")
    found = client(fake, max_network_retries=2).v1.refunds.create({"payment_intent": intent, "amount": 9}, MINE)
    assert found.amount == 9
    calls = fake.calls("POST")
    assert len(calls) == 2 and len({call.key for call in calls}) == 1
    assert fake.state.refunded(ACCOUNT, intent) == 9


def test_a_slow_answer_is_a_timeout(fake: Running) -> None:
    intent = fake.state.payment(ACCOUNT)["id"]
    fake.fault("delay", seconds=3)
    http = stripe.RequestsClient(timeout=0.2)
    slow = stripe.StripeClient("sk_test_fake", base_addresses={"api": fake.url}, http_client=http)
    with pytest.raises(stripe.APIConnectionError):
        slow.v1.refunds.create({"payment_intent": intent}, MINE)


# -- keys and accounts


def test_keys_and_accounts_see_what_is_theirs(fake: Running) -> None:
    intent = fake.state.payment(ACCOUNT)["id"]
    fake.fake.keys |= {"sk_test_old": "revoked", "rk_test_read": "restricted"}

    def read(key: str, options: Any) -> Callable[[], Any]:
        return lambda: client(fake, key).v1.payment_intents.retrieve(intent, None, options)

    assert read("sk_test_fake", MINE)().id == intent
    assert read("rk_test_read", MINE)().id == intent
    with pytest.raises(stripe.PermissionError):
        client(fake, "rk_test_read").v1.refunds.create({"payment_intent": intent}, MINE)
    for key in ("sk_test_old", "sk_test_unknown"):
        with pytest.raises(stripe.AuthenticationError) as caught:
            read(key, MINE)()
        assert key not in str(caught.value)
    with pytest.raises(stripe.PermissionError):
        read("sk_test_fake", {"stripe_account": "acct_nobody"})()
    for key, options in (("sk_test_fake", {}), ("sk_live_fake", MINE)):
        with pytest.raises(stripe.InvalidRequestError) as missing:
            read(key, options)()
        assert missing.value.code == "resource_missing"


# -- lists, expansion, other objects


def test_lists_are_paged_and_filtered(fake: Running) -> None:
    intent, other = fake.state.payment(ACCOUNT, 5000)["id"], fake.state.payment(ACCOUNT)["id"]
    made = [refund(fake, {"payment_intent": intent, "amount": 1}).id for _ in range(23)]
    refund(fake, {"payment_intent": other})
    page = client(fake).v1.refunds.list({"payment_intent": intent, "limit": 10}, MINE)
    assert page.has_more
    assert [one.id for one in page.auto_paging_iter()] == made[::-1]
    assert len(fake.calls("GET", "/v1/refunds")) == 3


def test_references_are_expanded(fake: Running) -> None:
    intent = fake.state.payment(ACCOUNT)
    found = client(fake).v1.payment_intents.retrieve(intent["id"], {"expand": ["latest_charge"]}, MINE)
    assert not isinstance(found.latest_charge, str | None)
    assert found.latest_charge.amount == 1999
    with pytest.raises(stripe.InvalidRequestError):
        client(fake).v1.payment_intents.retrieve(intent["id"], {"expand": ["nothing"]}, MINE)


def test_a_subscription_takes_an_absolute_quantity(fake: Running) -> None:
    item = fake.state.add("subscription_item", ACCOUNT, quantity=3)
    id_ = fake.state.add("subscription", ACCOUNT, livemode=False, items={"object": "list", "data": [item]})["id"]
    params: Any = {"items": [{"id": item["id"], "quantity": 2}], "proration_behavior": "none",
                   "cancel_at_period_end": True}  # fmt: skip
    found = client(fake).v1.subscriptions.update(id_, params, MINE)
    assert (found["items"]["data"][0]["quantity"], found.cancel_at_period_end) == (2, True)
    with pytest.raises(stripe.InvalidRequestError):
        client(fake).v1.subscriptions.update(id_, params | {"proration_behavior": "perhaps"}, MINE)


def test_a_payment_method_that_may_not_be_overridden_keeps_its_value(fake: Running) -> None:
    fixed = {"available": True, "display_preference": {"overridable": False, "preference": "on", "value": "on"}}
    id_ = fake.state.add("payment_method_configuration", ACCOUNT, livemode=False, card=fixed)["id"]
    change: Any = {name: {"display_preference": {"preference": "off"}} for name in ("card", "apple_pay")}
    found = client(fake).v1.payment_method_configurations.update(id_, change, MINE)
    assert found.card is not None and found.apple_pay is not None
    assert (found.card.display_preference.preference, found.card.display_preference.value) == ("off", "on")
    assert found.apple_pay.display_preference.value == "off"


def test_it_runs_on_its_own_and_is_told_by_http() -> None:
    command = [sys.executable, "-m", "tests.stripe_fake"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        url, key = process.stdout.readline().split()

        def tell(what: str, **values: Any) -> Any:
            data = json.dumps(values).encode()
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/_fake/{what}", data) as page:
                return json.load(page)

        tell("objects", kind="account", id=ACCOUNT)
        intent = tell("payments", account=ACCOUNT, amount=700)["id"]
        tell("faults", kind="429")
        own = stripe.StripeClient(key, base_addresses={"api": url})
        with pytest.raises(stripe.RateLimitError):
            own.v1.refunds.create({"payment_intent": intent}, MINE)
        assert own.v1.refunds.create({"payment_intent": intent}, MINE).amount == 700
        assert [call["status"] for call in tell("journal")] == [429, 200]
        process.kill()

"""A request repeated until it is answered for good is refunded exactly once, or refused for good."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from stackctl.core.errors import OutcomeUnknown, ServiceError
from stackctl.payments import gateway
from stackctl.payments.refunds import execute, ledger
from tests.backend import ended
from tests.shop import ACCOUNT, made, opened, refused
from tests.stripe_fake.server import KEY

if TYPE_CHECKING:
    from tests.shop import Shop
    from tests.stripe_fake import Running
    from tests.stripe_fake.faults import Kind

PLANNED = "stackctl.payments.refunds.execute:plan_refund:after"
SENDING = "stackctl.payments.gateway:Gateway.create_refund:before"


@pytest.mark.parametrize(("kind", "code"), [("429", "stripe-busy"), ("401", "stripe-key-refused"),
                                            ("403", "stripe-forbidden")])  # fmt: skip
def test_an_answer_that_says_try_again_does_not_end_the_request(
    shop: Shop, stripe: Running, kind: Kind, code: str
) -> None:
    bought, asked = shop.buy(1999), ("--amount", "5", "--request-id", "r")
    for _ in range(2):
        stripe.fault(kind, method="POST")
        assert refused(shop.refund(bought, *asked)) == (4, code)
        assert shop.status() == "canceled"
    key = stripe.calls("POST")[0].key
    done = shop.refund(bought, *asked)
    assert (done.code, done.json["refund"]["status"]) == (0, "succeeded")
    assert shop.refund(bought, *asked).json == done.json
    assert {call.key for call in stripe.calls("POST")} == {key}, "one key, whatever Stripe remembers"
    assert [one["amount"] for one in made(stripe)] == [500]
    assert shop.one("SELECT count(*) FROM stackctl.refund") == 1
    shop.agree()


def test_what_remains_is_looked_at_again(shop: Shop, stripe: Running) -> None:
    """Refunded by somebody else before the request is repeated: of all that remains less, of an amount nothing."""
    bought = shop.buy(2000)
    for asked in (("--full", "--request-id", "f"), ("--amount", "20", "--request-id", "a")):
        stripe.fault("429", method="POST")
        assert shop.refund(bought, *asked).code == 4
    assert shop.refund(bought, "--amount", "15").code == 0
    assert refused(shop.refund(bought, "--amount", "20", "--request-id", "a")) == (5, "amount-over-remainder")
    full = shop.refund(bought, "--full", "--request-id", "f")
    assert (full.code, full.json["refund"]["amount_usd"]) == (0, "5.00")
    assert refused(shop.refund(bought, "--full", "--request-id", "a")) == (5, "request-id-reused")
    assert [one["amount"] for one in made(stripe)] == [1500, 500]
    shop.agree()


def test_stripe_has_it_all_the_same(shop: Shop, stripe: Running) -> None:
    """Something between said "too many requests" of a request that came through."""
    bought, asked = shop.buy(2000), ("--amount", "5", "--request-id", "r")
    stripe.fault("429", method="POST")
    assert shop.refund(bought, *asked).code == 4
    sent = stripe.calls("POST")[0].params
    stripe.state.refund(ACCOUNT, sent | {"amount": 500}, False)
    assert shop.refund(bought, *asked).json["refund"]["status"] == "succeeded"
    assert len(made(stripe)) == 1
    shop.agree()


def test_a_refusal_for_good_ends_the_request(shop: Shop, stripe: Running) -> None:
    bought, asked = shop.buy(1999), ("--amount", "5", "--request-id", "r")
    with shop.pipeline().open_session() as conn:
        shop.killed(PLANNED, bought, *asked)
        refund = ledger.find_refunds(conn)[0]
        charge = stripe.state.get("payment_intent", ACCOUNT, refund.intent, False)["latest_charge"]
    stripe.state.get("charge", ACCOUNT, charge, False)["disputed"] = True
    assert refused(shop.refund(bought, *asked)) == (5, "charge-disputed")
    stripe.state.get("charge", ACCOUNT, charge, False)["disputed"] = False
    again = shop.refund(bought, *asked)
    assert (again.code, again.json["refund"]["status"], made(stripe)) == (5, "failed", [])


@pytest.mark.parametrize("kind", ["429", "401", "403"])
def test_what_was_left_behind_stays_planned_until_it_is_answered(shop: Shop, stripe: Running, kind: Kind) -> None:
    """Its question was answered with yes; nobody but `resume` will send it."""
    bought = shop.buy(1999)
    shop.killed(PLANNED, bought, "--amount", "5", "--request-id", "r")
    stripe.fault(kind, method="POST")
    assert (shop.resume().code, shop.status()) == (4, "planned")
    stripe.fault(kind, method="POST")
    assert shop.refund(bought, "--amount", "5", "--request-id", "r").code == 4
    assert shop.status() == "planned"
    assert (shop.resume().code, shop.status(), len(made(stripe))) == (0, "succeeded", 1)


def test_canceled_after_a_day_and_asked_for_again(shop: Shop, stripe: Running) -> None:
    bought, asked = shop.buy(1999), ("--amount", "5", "--request-id", "r")
    shop.killed(PLANNED, bought, *asked)
    shop.one("UPDATE stackctl.refund SET created_at = created_at - interval '24 hours' RETURNING id")
    resumed = shop.resume()
    assert (resumed.code, shop.status(), "never sent" in resumed.stderr) == (5, "canceled", True)
    dry = shop.run("refunds", "create", bought, *asked, "--dry-run", "--json")
    assert (dry.code, len(dry.json["requests"])) == (0, 1)
    assert shop.refund(bought, *asked).code == 0
    known = shop.run("refunds", "create", bought, *asked, "--dry-run")
    assert (known.code, "nothing would be sent" in known.stdout) == (0, True)
    assert len(made(stripe)) == 1
    shop.agree()


def test_a_redirect_is_not_followed(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    stripe.fault("302", method="POST")
    assert shop.refund(bought, "--full").code == 0
    assert [one["amount"] for one in made(stripe)] == [1999]
    shop.agree()
    on = opened(stripe)
    stripe.fault("302", method="GET")
    with pytest.raises(ServiceError, match="Stripe failed"):
        on.get_refund("re_1")


def test_an_answer_has_to_come_as_a_whole(stripe: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is no answer."""
    monkeypatch.setattr(gateway, "TIMEOUT", 0.3)
    stripe.state.add("account", id=ACCOUNT)
    on, intent = opened(stripe), stripe.state.payment(ACCOUNT, 1999)["id"]
    stripe.fault("slow-bytes", method="POST", seconds=0.1)
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown, match="no whole answer"):
        on.create_refund({"payment_intent": intent, "amount": 1}, "key")
    assert time.monotonic() - began < 5


def test_a_silent_stripe_costs_one_deadline_and_is_told_of(
    shop: Shop, stripe: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one for each time that the SDK asks again."""
    monkeypatch.setattr(gateway, "TIMEOUT", 0.6)
    monkeypatch.setattr(gateway, "WORD_AFTER", 0.1)
    told: list[str] = []
    on = gateway.Gateway(KEY, stripe.url, ACCOUNT, told.append)
    for _ in range(3):
        stripe.fault("delay", seconds=3)
    began = time.monotonic()
    with pytest.raises(ServiceError, match="no whole answer within"):
        on.get_refund("re_1")
    assert time.monotonic() - began < 1.8
    assert told == ["Stripe has not answered for 0.1 seconds; it has 0.6 in all"]
    assert [one.method for one in stripe.calls()] == [], "the first one sleeps still, and no other was sent"
    stripe.fake.faults.clear()
    began, bought = time.monotonic(), shop.buy(1999)
    code = "from stackctl.payments import gateway; gateway.TIMEOUT = 1.0; gateway.WORD_AFTER = 0.2"
    stripe.fault("delay", method="POST", seconds=5)
    outcome = ended(shop.start("refunds", "create", bought, "--full", "--yes", "--json", before=code))
    assert outcome.code == 0, outcome
    assert "Stripe has not answered for 0.2 seconds" in outcome.stderr


def test_a_status_that_nobody_knows(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    stripe.state.next_statuses.append("in_transit")
    result = shop.refund(bought, "--amount", "15")
    assert (result.code, result.json["refund"]["status"]) == (6, "submitted")
    assert "'in_transit', an unknown status" in result.stderr
    assert refused(shop.refund(bought, "--amount", "5")) == (5, "amount-over-remainder")
    assert shop.resume().code == 6
    made(stripe)[0]["status"] = "succeeded"
    assert shop.resume().code == 0
    shop.agree()


# -- resume, whose list was read when it began


def test_each_is_read_again_when_its_turn_comes(shop: Shop, stripe: Running) -> None:
    """Between the list and the turn: sent by somebody else, though it looks as if it had been planned too long ago."""
    bought = shop.buy(1999)
    with shop.pipeline().open_session() as conn:
        shop.killed(PLANNED, bought, "--full", "--request-id", "r")
        shop.one("UPDATE stackctl.refund SET created_at = created_at - interval '24 hours' RETURNING id")
        listed = ledger.find_refunds(conn)[0]
        shop.killed(SENDING, bought, "--full", "--request-id", "r")
        assert execute.settle_refund(conn, opened(stripe), listed).refund.status == "succeeded"
    assert len(made(stripe)) == 1
    shop.agree()


def test_sent_while_it_is_closed(shop: Shop, stripe: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing a planned one is for planned ones alone; what was not closed is settled anew."""
    bought = shop.buy(1999)
    shop.killed(PLANNED, bought, "--full", "--request-id", "r")
    shop.one("UPDATE stackctl.refund SET created_at = created_at - interval '24 hours' RETURNING id")
    whole = ledger.cancel_planned

    def late(*arguments: Any) -> bool:
        shop.killed(SENDING, bought, "--full", "--request-id", "r")
        return whole(*arguments)

    monkeypatch.setattr(ledger, "cancel_planned", late)
    with shop.pipeline().open_session() as conn:
        outcome = execute.settle_refund(conn, opened(stripe), ledger.find_refunds(conn)[0])
    assert (outcome.refund.status, len(made(stripe))) == ("succeeded", 1)


def test_a_day_passes_while_stripe_is_read(shop: Shop, stripe: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    bought = shop.buy(1999)
    shop.killed(SENDING, bought)
    on = opened(stripe)
    whole = on.list_refunds

    def late(*asked: Any) -> Any:
        shop.one("UPDATE stackctl.refund SET submitted_at = submitted_at - interval '25 hours' RETURNING id")
        return whole(*asked)

    monkeypatch.setattr(on, "list_refunds", late)
    with shop.pipeline().open_session() as conn:
        outcome = execute.settle_refund(conn, on, ledger.find_refunds(conn)[0])
    assert outcome.problem is not None
    assert (outcome.problem.code, made(stripe)) == ("too-late-to-resend", [])


def test_two_lists_at_once(shop: Shop, stripe: Running) -> None:
    """Each of two `resume --all` has the same list, and works off what the other has done already."""
    for _ in range(2):
        shop.killed(SENDING, shop.buy(1999), "--amount", "5")
        shop.killed(PLANNED, shop.buy(1999), "--amount", "5")
    with shop.pipeline().open_session() as conn:
        listed = ledger.find_refunds(conn, unsettled=True)
        on, others = opened(stripe), [shop.start("refunds", "resume", "--all", "--json") for _ in range(2)]
        for one in listed:
            execute.settle_refund(conn, on, one)
        for one in listed:
            assert execute.settle_refund(conn, on, one).refund.is_settled
    assert {ended(process).code for process in others} <= {0, 6}
    assert shop.one("SELECT max(sends) FROM stackctl.refund") <= 3
    assert len(made(stripe)) == 4
    shop.agree()

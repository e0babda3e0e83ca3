"""Refunds under faults: killed at every point, answered wrongly at every request, several at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stackctl.errors import OutcomeUnknown, ServiceError, StateError
from stackctl.payments import gateway, ledger, position, purchases, refunds
from stackctl.payments.wanted import Wanted, entries
from tests.backend import Outcome, wait_for
from tests.forked import Started, start
from tests.shop import ACCOUNT, made
from tests.stripe_fake.faults import KINDS, Kind
from tests.stripe_fake.server import KEY

if TYPE_CHECKING:
    import uuid

    from tests.shop import Shop
    from tests.stripe_fake import Running

KILLED = -9
LEDGER, GATEWAY, REFUNDS = "stackctl.payments.ledger", "stackctl.payments.gateway:Gateway", "stackctl.payments.refunds"

# Where the process dies; the status that is left, and how many refunds Stripe has then.
POINTS: dict[str, tuple[str, str | None, int]] = {
    "the purchase is read": (f"{GATEWAY}.refunds:after", None, 0),
    "planned, not committed": (f"{LEDGER}:plan:after", None, 0),
    "planned": (f"{REFUNDS}:plan:after", "planned", 0),
    "being sent, not committed": (f"{LEDGER}:submit:before", "planned", 0),
    "about to be sent": (f"{GATEWAY}.refund:before", "submitted", 0),
    "answered": (f"{GATEWAY}.refund:after", "submitted", 1),
    "about to be recorded": (f"{LEDGER}:record:before", "submitted", 1),
    "recorded, not committed": (f"{LEDGER}:record:after", "submitted", 1),
    "the purchase is marked, not committed": ("stackctl.payments.purchases:mark_refunded:after", "submitted", 1),
    "recorded": (f"{REFUNDS}:_recorded:after", "succeeded", 1),
}
# Of a subscription's, after its money is back.
REVOKING = {
    "the item is read": f"{REFUNDS}:_item:after",
    "the quantity is about to be set": f"{GATEWAY}.set_quantity:before",
    "the quantity is set": f"{GATEWAY}.set_quantity:after",
    "the quantity is written, not committed": "stackctl.payments.purchases:set_quantity:after",
    "the ledger is written, not committed": f"{LEDGER}:revoked:after",
}


def create(shop: Shop, point: str | None, bought: uuid.UUID, *arguments: str) -> Started:
    return start(shop.directory, ("refunds", "create", bought, *(arguments or ("--full",)), "--yes", "--json"), point)


def status(shop: Shop) -> str | None:
    return shop.one("SELECT status FROM stackctl.refund")


def agree(shop: Shop) -> None:
    result = shop.run("refunds", "list", "--reconcile", "--json")
    assert result.code == 0, result


@pytest.mark.parametrize("point", POINTS)
def test_killed_when(shop: Shop, stripe: Running, point: str) -> None:
    spec, left, there = POINTS[point]
    bought = shop.buy(1999)
    outcome = create(shop, spec, bought).ended()
    assert outcome.code == KILLED, f"it did not come by the point: {outcome}"
    assert (status(shop), len(made(stripe))) == (left, there)
    if left not in (None, "succeeded"):
        again = shop.refund(bought, "--full")
        assert (again.code, again.json["error"]["code"]) == (5, "refund-under-way")
    resumed = shop.resume()
    assert (resumed.code, resumed.json["left"]) == (0, 0)
    if left is not None:
        assert status(shop) == "succeeded"
        assert shop.row(bought, "refundedAt") is not None
        assert [one["amount"] for one in made(stripe)] == [1999]
        assert shop.run("refunds", "create", bought, "--full", "--yes").code == 5
    agree(shop)


@pytest.mark.parametrize("point", REVOKING)
def test_killed_when_revoking(shop: Shop, stripe: Running, point: str) -> None:
    id_ = shop.subscribe(3000, 3)
    outcome = create(shop, REVOKING[point], id_, "--amount", "10", "--quantity", "1").ended()
    assert outcome.code == KILLED, f"it did not come by the point: {outcome}"
    assert status(shop) == "succeeded"
    assert shop.row(id_, "quantity") == 3
    assert shop.run("refunds", "list", "--reconcile").code == 1
    assert "not settled" in shop.run("refunds", "show", shop.one("SELECT id FROM stackctl.refund")).stdout
    assert shop.resume().code == 0
    found = stripe.state.get("subscription", ACCOUNT, f"sub_{id_}", False)
    assert (found["items"]["data"][0]["quantity"], shop.row(id_, "quantity")) == (2, 2)
    assert len(made(stripe)) == 1
    agree(shop)


def test_killed_when_cancelling(shop: Shop, stripe: Running) -> None:
    id_ = shop.subscribe(3000, 3)
    assert create(shop, f"{GATEWAY}.cancel_at_period_end:after", id_).ended().code == KILLED
    assert shop.row(id_, "cancelAtPeriodEnd") is False
    assert shop.resume().code == 0
    assert shop.row(id_, "cancelAtPeriodEnd") is True
    assert len(stripe.calls("POST", "/v1/subscriptions")) == 1


def test_the_backend_hears_of_the_quantity_first(shop: Shop, stripe: Running) -> None:
    """Its webhook writes what Stripe has before the refund is settled: nothing is taken off twice."""
    id_ = shop.subscribe(3000, 3)
    assert (
        create(shop, REVOKING["the quantity is set"], id_, "--amount", "10", "--quantity", "1").ended().code == KILLED
    )
    shop.one('UPDATE "Subscription" SET quantity = 2 WHERE id = %s RETURNING id', id_)
    assert shop.resume().code == 0
    found = stripe.state.get("subscription", ACCOUNT, f"sub_{id_}", False)
    assert (found["items"]["data"][0]["quantity"], shop.row(id_, "quantity")) == (2, 2)


# -- each fault of Stripe at each request

GETS = ("drop-before", "drop-after", "429", "409", "500-before", "500-after", "html-502")


@pytest.mark.parametrize("kind", KINDS)
def test_the_refund_is_answered_with(shop: Shop, stripe: Running, kind: Kind) -> None:
    bought = shop.buy(1999)
    stripe.fault(kind, method="POST", seconds=0.1)
    result = shop.refund(bought, "--full")
    if kind == "429":
        assert (result.code, result.json["error"]["code"], made(stripe)) == (4, "stripe-busy", [])
        return
    assert (result.code, result.json["refund"]["status"]) == (0, "succeeded"), "it was found out at once"
    assert [one["amount"] for one in made(stripe)] == [1999]
    agree(shop)


@pytest.mark.parametrize("kind", ["drop-after", "500-before"])
def test_an_outage_that_begins_with_the_refund(shop: Shop, stripe: Running, kind: Kind) -> None:
    bought = shop.buy(1999)
    stripe.fault(kind, method="POST")
    for nth in range(1, 30):
        stripe.fault("drop-before", nth=nth + 2)  # all that comes behind the two reads and the refund
    result = shop.refund(bought, "--full")
    assert (result.code, result.json["refund"]["status"]) == (6, "submitted")
    assert "submitted" in shop.run("refunds", "list").stdout
    assert shop.run("refunds", "resume", "--all", "--json").code == 4, "Stripe is still away"
    stripe.fake.faults.clear()
    assert shop.resume().code == 0
    assert [one["amount"] for one in made(stripe)] == [1999]
    agree(shop)


@pytest.mark.parametrize("kind", GETS)
@pytest.mark.parametrize("nth", [1, 2])
def test_a_read_is_answered_with(shop: Shop, stripe: Running, kind: Kind, nth: int) -> None:
    bought = shop.buy(1999)
    stripe.fault(kind, nth=nth, method="GET")
    result = shop.refund(bought, "--full")
    assert result.code == (4 if kind == "429" else 0), "the SDK asks again"
    assert len(made(stripe)) == (0 if kind == "429" else 1)
    agree(shop)


@pytest.mark.parametrize("kind", ["drop-after", "500-before", "429"])
def test_the_subscription_is_answered_with(shop: Shop, stripe: Running, kind: Kind) -> None:
    id_ = shop.subscribe(3000, 3)
    for nth in (2, 3, 4):  # the SDK's retries, too
        stripe.fault(kind, nth=nth, method="POST")
    result = shop.refund(id_, "--amount", "10", "--quantity", "1")
    assert (result.code, result.json["refund"]["status"]) == (6, "succeeded")
    assert "quantity" in shop.run("refunds", "list").stdout
    stripe.fake.faults.clear()
    assert shop.resume().code == 0
    assert shop.row(id_, "quantity") == 2
    agree(shop)


def test_an_answer_that_never_comes(shop: Shop, stripe: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "TIMEOUT", 0.2)
    bought, pauses = shop.buy(1999), []
    stripe.fault("delay", method="POST", seconds=1.0)
    with shop.pipeline().session() as conn:
        refund = planned(shop, conn, bought)

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            wait_for(lambda: made(stripe))

        outcome = refunds.carry_out(conn, opened(stripe), refund, unanswered=pause)
    assert outcome.refund.status == "succeeded"
    assert pauses == list(refunds.PAUSES[:1])
    assert len(made(stripe)) == 1
    assert len(stripe.calls("POST")) == 1, "it was found, not sent again"


def opened(stripe: Running, key: str = KEY) -> gateway.Gateway:
    return gateway.Gateway(key, stripe.url, ACCOUNT)


def planned(shop: Shop, conn: Any, bought: uuid.UUID) -> ledger.Refund:
    """A refund that a killed process has left behind."""
    assert create(shop, f"{REFUNDS}:plan:after", bought).ended().code == KILLED
    return ledger.find(conn, purchase=bought)[0]


# -- old ones


def aged(shop: Shop, hours: int) -> str:
    return str(
        shop.one(
            "UPDATE stackctl.refund SET created_at = created_at - %s * interval '1 hour',"
            " submitted_at = submitted_at - %s * interval '1 hour' RETURNING id", hours, hours,
        )
    )  # fmt: skip


def test_too_late_to_be_sent_again(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    assert create(shop, f"{GATEWAY}.refund:before", bought).ended().code == KILLED
    id_ = aged(shop, 22)
    young = shop.run("refunds", "resume", id_, "--give-up", "--yes", "--json")
    assert (young.code, young.json["error"]["code"]) == (5, "not-to-be-canceled")
    assert status(shop) == "succeeded", "there was time to send it"

    other = shop.buy(500)
    shop.one("DELETE FROM stackctl.refund RETURNING id")
    assert create(shop, f"{GATEWAY}.refund:before", other).ended().code == KILLED
    id_ = aged(shop, 24)
    result = shop.run("refunds", "resume", id_, "--json")
    assert (result.code, result.json["refund"]["status"]) == (6, "submitted")
    assert "too late" in result.stderr
    assert shop.resume().code == 6
    assert len(made(stripe)) == 1
    assert shop.run("refunds", "resume", id_, "--give-up").code == 5, "nobody can be asked here"
    given_up = shop.run("refunds", "resume", id_, "--give-up", "--yes", "--json")
    assert (given_up.code, given_up.json["refund"]["status"]) == (5, "canceled")
    assert shop.refund(other, "--full").code == 0


def test_too_late_but_stripe_has_it(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    assert create(shop, f"{GATEWAY}.refund:after", bought).ended().code == KILLED
    id_ = aged(shop, 48)
    assert shop.run("refunds", "resume", id_, "--give-up", "--yes", "--json").code == 5
    assert status(shop) == "succeeded"
    assert len(made(stripe)) == 1


def test_planned_long_ago_is_not_sent_out_of_the_blue(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    assert create(shop, f"{REFUNDS}:plan:after", bought).ended().code == KILLED
    aged(shop, 24)
    assert shop.resume().code == 0
    assert (status(shop), made(stripe)) == ("canceled", [])


def test_the_key_of_the_other_mode_settles_nothing(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    assert create(shop, f"{GATEWAY}.refund:before", bought).ended().code == KILLED
    with shop.pipeline().session() as conn:
        refund = ledger.find(conn)[0]
        with pytest.raises(StateError, match="test mode, and the key is a live key"):
            refunds.settle(conn, opened(stripe, "sk_live_fake"), refund)
    result = shop.run("refunds", "resume", "--all", "--stripe-api-key", "sk_live_fake", "--json")
    assert (result.code, status(shop)) == (6, "submitted")


def test_refused_when_sent_again(shop: Shop, stripe: Running) -> None:
    """Disputed meanwhile: Stripe does not have it, and will not."""
    bought = shop.buy(1999)
    assert create(shop, f"{GATEWAY}.refund:before", bought).ended().code == KILLED
    intent = stripe.state.get("payment_intent", ACCOUNT, shop.row(bought, "stripePaymentIntentId"), False)
    stripe.state.get("charge", ACCOUNT, intent["latest_charge"], False)["disputed"] = True
    result = shop.resume()
    assert (result.code, status(shop)) == (0, "failed")
    assert "charged back" in shop.one("SELECT failure FROM stackctl.refund")


# -- several at once


def outcomes(processes: list[Started]) -> list[Outcome]:
    return [process.ended() for process in processes]


def test_sixteen_at_once(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    codes = sorted(one.code for one in outcomes([create(shop, None, bought) for _ in range(16)]))
    assert codes == [0] + [5] * 15
    assert [one["amount"] for one in made(stripe)] == [1999]
    agree(shop)


def test_sixteen_parts_at_once_never_sum_to_more_than_was_charged(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    found = outcomes([create(shop, None, bought, "--amount", "2.50", "--request-id", str(n)) for n in range(16)])
    assert sorted(one.code for one in found) == [0] * 7 + [5] * 9
    assert [one["amount"] for one in made(stripe)] == [250] * 7
    agree(shop)


def test_one_request_sixteen_times_at_once(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    found = outcomes([create(shop, None, bought, "--amount", "5", "--request-id", "same") for _ in range(16)])
    assert [one.code for one in found] == [0] * 16
    assert len({one.json["refund"]["id"] for one in found}) == 1
    assert [one["amount"] for one in made(stripe)] == [500]


def test_resumed_by_several_at_once(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    assert create(shop, f"{GATEWAY}.refund:before", bought).ended().code == KILLED
    running = [start(shop.directory, ("refunds", "resume", "--all", "--json")) for _ in range(8)]
    assert {one.code for one in outcomes(running)} <= {0, 6}
    assert shop.resume().code == 0
    assert [one["amount"] for one in made(stripe)] == [1999]
    agree(shop)


def test_the_later_of_two_who_look_does_not_take_it_back(shop: Shop, stripe: Running) -> None:
    """One has read "pending" and is slow; another has read and recorded "succeeded"."""
    bought = shop.buy(1999)
    stripe.state.next_statuses.append("pending")
    assert shop.refund(bought, "--full").code == 6
    with shop.pipeline().session() as conn:
        refund = ledger.find(conn)[0]
        assert refund.stripe_refund
        ledger.record(conn, refund.id, status="succeeded", stripe=refund.stripe_refund, failure=None)
        ledger.record(conn, refund.id, status="pending", stripe=refund.stripe_refund, failure=None)
        assert ledger.get(conn, refund.id).status == "succeeded"
        ledger.record(conn, refund.id, status="failed", stripe=refund.stripe_refund, failure="lost")
        ledger.record(conn, refund.id, status="succeeded", stripe=refund.stripe_refund, failure=None)
        assert ledger.get(conn, refund.id).status == "failed"


def test_closed_wrongly_is_mended_by_what_stripe_has(shop: Shop) -> None:
    bought = shop.buy(1999)
    assert create(shop, f"{GATEWAY}.refund:after", bought).ended().code == KILLED
    with shop.pipeline().session() as conn:
        refund = ledger.find(conn)[0]
        ledger.close(conn, refund.id, "failed", "thought so")
        ledger.record(conn, refund.id, status="succeeded", stripe="re_1", failure=None)
        assert ledger.get(conn, refund.id).status == "succeeded"


def test_a_database_that_goes_away_after_the_call(shop: Shop, stripe: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    bought = shop.buy(1999)
    with shop.pipeline().session() as conn:
        refund = planned(shop, conn, bought)
        on = opened(stripe)
        whole = on.refund

        def then_gone(*arguments: Any) -> gateway.Made:
            answer = whole(*arguments)
            shop.one("SELECT pg_terminate_backend(%s)", conn.info.backend_pid)
            return answer

        monkeypatch.setattr(on, "refund", then_gone)
        with pytest.raises(OutcomeUnknown, match="could not be written down") as caught:
            refunds.carry_out(conn, on, refund)
    assert caught.value.details == {"refund": str(refund.id)}
    assert shop.resume().code == 0
    assert len(made(stripe)) == 1


def test_a_purchase_locked_by_the_application(shop: Shop, stripe: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of Stripe while the remainder can't be held."""
    monkeypatch.setattr(purchases, "LOCK_TIMEOUT", "100ms")
    bought = shop.buy(1999)
    wanted = Wanted(None)
    with shop.connect() as other, other.transaction():
        other.execute('SELECT 1 FROM "OneTimePurchase" WHERE id = %s FOR UPDATE', (bought,))
        with pytest.raises(StateError) as caught, shop.pipeline().session() as conn:
            found = position.read(conn, purchases.find(conn, bought), None, lambda: (ACCOUNT, opened(stripe)))
            refunds.plan(conn, found, entries(wanted, found), wanted)
    assert caught.value.code == "lock-timeout"
    assert status(shop) is None


def test_interrupted_in_the_call(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    stripe.fault("delay", method="POST", seconds=30)
    running = create(shop, None, bought)
    wait_for(lambda: not stripe.fake.faults.waiting)
    running.process.terminate()
    outcome = running.ended()
    assert outcome.code == 130
    assert "refunds resume" in outcome.stderr
    assert status(shop) == "submitted"
    assert shop.resume().code == 0
    assert len(made(stripe)) == 1


def test_what_fails_in_the_end_revokes_nothing(shop: Shop, stripe: Running) -> None:
    """A refund that is under way holds its quantity, but takes nothing away."""
    bought = shop.buy(1999, 2)
    stripe.state.next_statuses.extend(["pending", "succeeded"])
    assert shop.refund(bought, "--amount", "5", "--quantity", "1").code == 6
    assert shop.refund(bought, "--amount", "6", "--quantity", "1").code == 0
    assert shop.row(bought, "revokedAt") is None
    made(stripe)[0]["status"] = "failed"
    assert shop.resume().code == 0
    assert shop.row(bought, "revokedAt") is None
    assert shop.refund(bought, "--amount", "5", "--quantity", "1").code == 0
    assert shop.row(bought, "revokedAt") is not None


def test_refused_while_somebody_else_sends_it_again(
    shop: Shop, stripe: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was refused does not say that nothing was refunded, nor free the money."""
    bought = shop.buy(1999)
    with shop.pipeline().session() as conn:
        refund, on = planned(shop, conn, bought), opened(stripe)

        def refuse(*_: Any) -> gateway.Made:
            with shop.connect() as other:
                assert ledger.send_again(other, refund.id)
            raise ServiceError("too many requests", code="stripe-busy")

        monkeypatch.setattr(on, "refund", refuse)
        outcome = refunds.carry_out(conn, on, refund)
    assert (outcome.refund.status, outcome.problem is None) == ("submitted", False)
    assert shop.resume().code == 0
    assert len(made(stripe)) == 1


def test_one_request_for_two_purchases_at_once(shop: Shop, stripe: Running) -> None:
    one, other = shop.buy(), shop.buy()
    both = [create(shop, None, id_, "--full", "--request-id", "same") for id_ in (one, other)]
    found = sorted(process.ended().code for process in both)
    assert found == [0, 5]
    assert len(made(stripe)) == 1


def test_one_who_slept_does_not_raise_the_quantity(
    shop: Shop, stripe: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its refund is settled by another, and a later one lowers the quantity further, before it sets its own."""
    id_ = shop.subscribe(3000, 3)
    assert create(shop, REVOKING["the item is read"], id_, "--amount", "10", "--quantity", "1").ended().code == KILLED
    with shop.pipeline().session() as conn:
        refund, on = ledger.find(conn)[0], opened(stripe)
        whole = on.set_quantity

        def late(*arguments: Any) -> None:
            monkeypatch.undo()
            assert shop.resume(str(refund.id)).code == 0
            assert shop.refund(id_, "--amount", "11", "--quantity", "1").code == 0
            whole(*arguments)

        monkeypatch.setattr(on, "set_quantity", late)
        assert refunds.settle(conn, on, refund).refund.is_settled
    found = stripe.state.get("subscription", ACCOUNT, f"sub_{id_}", False)
    assert (found["items"]["data"][0]["quantity"], shop.row(id_, "quantity")) == (1, 1)


def test_seats_bought_meanwhile_stay(shop: Shop, stripe: Running) -> None:
    id_ = shop.subscribe(3000, 3)
    assert create(shop, f"{REFUNDS}:_revoke:before", id_, "--amount", "10", "--quantity", "1").ended().code == KILLED
    item = stripe.state.get("subscription", ACCOUNT, f"sub_{id_}", False)["items"]["data"][0]
    item["quantity"] = 10
    assert shop.resume().code == 0
    assert item["quantity"] == 9


def test_resumed_sent_and_then_not_recorded(shop: Shop, stripe: Running) -> None:
    """It was sent: a script must not take that for a refusal."""
    bought = shop.buy(1999)
    assert create(shop, f"{REFUNDS}:plan:after", bought).ended().code == KILLED
    for nth in (1, 2, 3):
        stripe.fault("drop-before", nth=nth, method="GET", path="/v1/payment_intents")
    resumed = shop.resume(str(shop.one("SELECT id FROM stackctl.refund")))
    assert (resumed.code, resumed.json["error"]["code"]) == (6, "refund-not-recorded")
    stripe.fake.faults.clear()
    assert shop.resume().code == 0
    assert len(made(stripe)) == 1


def test_seats_bought_meanwhile_are_counted_once_by_two_who_settle(
    shop: Shop, stripe: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = shop.subscribe(3000, 3)
    assert create(shop, f"{REFUNDS}:_revoke:before", id_, "--amount", "10", "--quantity", "1").ended().code == KILLED
    item = stripe.state.get("subscription", ACCOUNT, f"sub_{id_}", False)["items"]["data"][0]
    item["quantity"] = 10
    with shop.pipeline().session() as conn:
        refund, on = ledger.find(conn)[0], opened(stripe)
        whole = on.item

        def late(*arguments: Any, **named: Any) -> gateway.Item:
            monkeypatch.undo()
            assert shop.resume(str(refund.id)).code == 0
            return whole(*arguments, **named)

        monkeypatch.setattr(on, "item", late)
        assert refunds.settle(conn, on, refund).refund.is_settled
    assert item["quantity"] == 9

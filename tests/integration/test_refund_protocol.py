"""Refunds under faults: killed at every point, answered wrongly at every request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stackctl.core.errors import OutcomeUnknown, StateError
from stackctl.payments import gateway
from stackctl.payments.refunds import execute, ledger
from tests.backend import ended, wait_for
from tests.shop import ACCOUNT, made, opened
from tests.stripe_fake.faults import KINDS, Kind

if TYPE_CHECKING:
    from tests.shop import Shop
    from tests.stripe_fake import Running

LEDGER, GATEWAY, REFUNDS = (
    "stackctl.payments.refunds.ledger",
    "stackctl.payments.gateway:Gateway",
    "stackctl.payments.refunds.execute",
)

# Where the process dies; the status that is left, and how many refunds Stripe has then.
POINTS: dict[str, tuple[str, str | None, int]] = {
    "the purchase is read": (f"{GATEWAY}.list_refunds:after", None, 0),
    "planned, not committed": (f"{LEDGER}:insert_refund:after", None, 0),
    "planned": (f"{REFUNDS}:plan_refund:after", "planned", 0),
    "being sent, not committed": (f"{LEDGER}:mark_submitted:before", "planned", 0),
    "about to be sent": (f"{GATEWAY}.create_refund:before", "submitted", 0),
    "answered": (f"{GATEWAY}.create_refund:after", "submitted", 1),
    "about to be recorded": (f"{LEDGER}:record_status:before", "submitted", 1),
    "recorded, not committed": (f"{LEDGER}:record_status:after", "submitted", 1),
    "the purchase is marked, not committed": ("stackctl.payments.purchases:mark_refunded:after", "submitted", 1),
    "recorded": (f"{REFUNDS}:_record:after", "succeeded", 1),
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_when(shop: Shop, stripe: Running, point: str) -> None:
    spec, left, there = POINTS[point]
    bought = shop.buy(1999)
    shop.killed(spec, bought)
    assert (shop.status(), len(made(stripe))) == (left, there)
    if left not in (None, "succeeded"):
        again = shop.refund(bought, "--full")
        assert (again.code, again.json["error"]["code"]) == (5, "already-refunded" if there else "refund-under-way")
    resumed = shop.resume()
    assert (resumed.code, resumed.json["left"]) == (0, 0)
    if left is not None:
        assert shop.status() == "succeeded"
        assert shop.row(bought, "refundedAt") is not None
        assert [one["amount"] for one in made(stripe)] == [1999]
        assert shop.run("refunds", "create", bought, "--full", "--yes").code == 5
    shop.agree()


GETS = ("drop-before", "drop-after", "429", "409", "500-before", "500-after", "html-502")


@pytest.mark.parametrize("kind", KINDS)
def test_the_refund_is_answered_with(shop: Shop, stripe: Running, kind: Kind) -> None:
    bought = shop.buy(1999)
    stripe.fault(kind, method="POST", seconds=0.0001 if kind == "slow-bytes" else 0.1)
    result = shop.refund(bought, "--full")
    if kind in ("401", "403", "429"):
        assert (result.code, made(stripe)) == (4, [])
        return
    assert (result.code, result.json["refund"]["status"]) == (0, "succeeded"), "it was found out at once"
    assert [one["amount"] for one in made(stripe)] == [1999]
    shop.agree()


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
    shop.agree()


@pytest.mark.parametrize("nth", [1, 2])
def test_a_read_is_answered_with_something_else(shop: Shop, stripe: Running, nth: int) -> None:
    """An empty answer is no empty list: what was refunded before would be forgotten."""
    bought = shop.buy(1999)
    assert shop.refund(bought, "--amount", "5").code == 0
    stripe.fault("empty-200", nth=nth, method="GET")
    result = shop.refund(bought, "--full")
    assert (result.code, result.json["error"]["code"]) == (4, "stripe-failed")
    assert len(made(stripe)) == 1


@pytest.mark.parametrize("kind", GETS)
@pytest.mark.parametrize("nth", [1, 2])
def test_a_read_is_answered_with(shop: Shop, stripe: Running, kind: Kind, nth: int) -> None:
    bought = shop.buy(1999)
    stripe.fault(kind, nth=nth, method="GET")
    result = shop.refund(bought, "--full")
    assert result.code == (4 if kind == "429" else 0), "the SDK asks again"
    assert len(made(stripe)) == (0 if kind == "429" else 1)
    shop.agree()


def test_an_answer_that_never_comes(shop: Shop, stripe: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "TIMEOUT", 0.2)
    bought, pauses = shop.buy(1999), []
    stripe.fault("delay", method="POST", seconds=1.0)
    with shop.pipeline().open_session() as conn:
        refund = shop.planned(conn, bought)

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            wait_for(lambda: made(stripe))

        outcome = execute.execute_refund(conn, opened(stripe), refund, wait=pause)
    assert outcome.refund.status == "succeeded"
    assert pauses == list(execute.LOOKUP_PAUSES[:1])
    assert len(made(stripe)) == 1
    assert len(stripe.calls("POST")) == 1, "it was found, not sent again"


def aged(shop: Shop, hours: int) -> str:
    return str(
        shop.one(
            "UPDATE stackctl.refund SET created_at = created_at - %s * interval '1 hour',"
            " submitted_at = submitted_at - %s * interval '1 hour' RETURNING id", hours, hours,
        )
    )  # fmt: skip


def test_too_late_to_be_sent_again(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    shop.killed(f"{GATEWAY}.create_refund:before", bought)
    id_ = aged(shop, 22)
    young = shop.run("refunds", "resume", id_, "--give-up", "--yes", "--json")
    assert (young.code, young.json["error"]["code"]) == (5, "not-to-be-canceled")
    assert shop.status() == "succeeded", "there was time to send it"

    other = shop.buy(500)
    shop.one("DELETE FROM stackctl.refund RETURNING id")
    shop.killed(f"{GATEWAY}.create_refund:before", other)
    id_ = aged(shop, 24)
    result = shop.run("refunds", "resume", id_, "--json")
    assert (result.code, result.json["refund"]["status"]) == (6, "submitted")
    assert "too late" in result.stderr
    assert shop.resume().code == 6
    assert len(made(stripe)) == 1
    assert shop.run("refunds", "resume", id_, "--give-up").code == 5, "nobody can be asked here"
    given_up = shop.run("refunds", "resume", id_, "--give-up", "--yes", "--json")
    assert (given_up.code, given_up.json["refund"]["status"]) == (0, "canceled")
    assert given_up.json["undone"] == [
        "5.00 USD was not found to be refunded (given up: Stripe does not have it)", "1 are not revoked",
    ]  # fmt: skip
    assert shop.refund(other, "--full").code == 0


def test_too_late_but_stripe_has_it(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    shop.killed(f"{GATEWAY}.create_refund:after", bought)
    id_ = aged(shop, 48)
    assert shop.run("refunds", "resume", id_, "--give-up", "--yes", "--json").code == 5
    assert shop.status() == "succeeded"
    assert len(made(stripe)) == 1


def test_planned_long_ago_is_not_sent_out_of_the_blue(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    shop.killed(f"{REFUNDS}:plan_refund:after", bought)
    aged(shop, 24)
    assert shop.resume().code == 5
    assert (shop.status(), made(stripe)) == ("canceled", [])


def test_the_key_of_the_other_mode_settles_nothing(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    shop.killed(f"{GATEWAY}.create_refund:before", bought)
    with shop.pipeline().open_session() as conn:
        refund = ledger.find_refunds(conn)[0]
        with pytest.raises(StateError, match="test mode, and the key is a live key"):
            execute.settle_refund(conn, opened(stripe, "sk_live_fake"), refund)
    live = ("--stripe-api-key", "sk_live_fake", "--json")
    before = len(stripe.calls())
    result = shop.run("refunds", "resume", "--all", *live)
    assert (result.code, shop.status(), result.json["skipped"]) == (0, "submitted", 1)
    assert "1 refund of test mode passed over" in result.stderr
    given_up = shop.run("refunds", "resume", str(refund.id), "--give-up", "--yes", *live)
    assert (given_up.code, given_up.json["refund"]["status"], len(stripe.calls())) == (0, "canceled", before)


def test_refused_when_sent_again(shop: Shop, stripe: Running) -> None:
    """Disputed meanwhile: Stripe does not have it, and will not."""
    bought = shop.buy(1999)
    shop.killed(f"{GATEWAY}.create_refund:before", bought)
    intent = stripe.state.get("payment_intent", ACCOUNT, shop.row(bought, "stripePaymentIntentId"), False)
    stripe.state.get("charge", ACCOUNT, intent["latest_charge"], False)["disputed"] = True
    result = shop.resume()
    assert (result.code, shop.status()) == (5, "failed")
    assert "charged back" in shop.one("SELECT failure FROM stackctl.refund")


def test_a_database_that_goes_away_after_the_call(shop: Shop, stripe: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    bought = shop.buy(1999)
    with shop.pipeline().open_session() as conn:
        refund = shop.planned(conn, bought)
        on = opened(stripe)
        whole = on.create_refund

        def then_gone(*arguments: Any) -> gateway.StripeRefund:
            answer = whole(*arguments)
            shop.one("SELECT pg_terminate_backend(%s)", conn.info.backend_pid)
            return answer

        monkeypatch.setattr(on, "create_refund", then_gone)
        with pytest.raises(OutcomeUnknown, match="could not be written down") as caught:
            execute.execute_refund(conn, on, refund)
    assert caught.value.details == {"refund": str(refund.id)}
    assert shop.resume().code == 0
    assert len(made(stripe)) == 1


def test_interrupted_in_the_call(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    stripe.fault("delay", method="POST", seconds=30)
    running = shop.create(None, bought)
    wait_for(lambda: not stripe.fake.faults.waiting)
    running.terminate()
    outcome = ended(running)
    assert outcome.code == 130
    assert "refunds resume" in outcome.stderr
    assert shop.status() == "submitted"
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
    assert shop.resume().code == 5
    assert shop.row(bought, "revokedAt") is None
    assert shop.refund(bought, "--amount", "5", "--quantity", "1").code == 0
    assert shop.row(bought, "revokedAt") is not None


def test_resumed_sent_and_then_not_recorded(shop: Shop, stripe: Running) -> None:
    """It was sent: a script must not take that for a refusal."""
    bought = shop.buy(1999)
    shop.killed(f"{REFUNDS}:plan_refund:after", bought)
    for nth in (1, 2, 3):
        stripe.fault("drop-before", nth=nth, method="GET", path="/v1/payment_intents")
    resumed = shop.resume(str(shop.one("SELECT id FROM stackctl.refund")))
    assert (resumed.code, resumed.json["error"]["code"]) == (6, "refund-not-recorded")
    stripe.fake.faults.clear()
    assert shop.resume().code == 0
    assert len(made(stripe)) == 1

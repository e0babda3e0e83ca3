"""What a refund takes off a subscription: killed, answered wrongly, changed by others meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stackctl.payments.refunds import execute, ledger
from tests.shop import ACCOUNT, made, opened

if TYPE_CHECKING:
    from stackctl.payments import gateway
    from tests.shop import Shop
    from tests.stripe_fake import Running
    from tests.stripe_fake.faults import Kind

LEDGER, GATEWAY, REFUNDS = (
    "stackctl.payments.refunds.ledger",
    "stackctl.payments.gateway:Gateway",
    "stackctl.payments.refunds.execute",
)

# Of a subscription's, after its money is back.
REVOKING = {
    "the item is read": "stackctl.payments.refunds.quantity:_find_item:after",
    "the quantity is about to be set": f"{GATEWAY}.set_quantity:before",
    "the quantity is set": f"{GATEWAY}.set_quantity:after",
    "the quantity is written, not committed": "stackctl.payments.purchases:lower_quantity:after",
    "the ledger is written, not committed": f"{LEDGER}:mark_revoked:after",
}


@pytest.mark.parametrize("point", REVOKING)
def test_killed_when_revoking(shop: Shop, stripe: Running, point: str) -> None:
    id_ = shop.subscribe(3000, 3)
    shop.killed(REVOKING[point], id_, "--amount", "10", "--quantity", "1")
    assert shop.status() == "succeeded"
    assert shop.row(id_, "quantity") == 3
    assert shop.run("refunds", "list", "--reconcile").code == 1
    assert "not settled" in shop.run("refunds", "show", shop.one("SELECT id FROM stackctl.refund")).stdout
    assert shop.resume().code == 0
    assert (shop.item(id_)["quantity"], shop.row(id_, "quantity")) == (2, 2)
    assert len(made(stripe)) == 1
    shop.agree()


def test_killed_when_cancelling(shop: Shop, stripe: Running) -> None:
    id_ = shop.subscribe(3000, 3)
    shop.killed(f"{GATEWAY}.cancel_at_period_end:after", id_)
    assert shop.row(id_, "cancelAtPeriodEnd") is False
    assert shop.resume().code == 0
    assert shop.row(id_, "cancelAtPeriodEnd") is True
    assert len(stripe.calls("POST", "/v1/subscriptions")) == 1


def test_the_backend_hears_of_the_quantity_first(shop: Shop, stripe: Running) -> None:
    """Its webhook writes what Stripe has before the refund is settled: nothing is taken off twice."""
    id_ = shop.subscribe(3000, 3)
    shop.killed(REVOKING["the quantity is set"], id_, "--amount", "10", "--quantity", "1")
    shop.one('UPDATE "Subscription" SET quantity = 2 WHERE id = %s RETURNING id', id_)
    assert shop.resume().code == 0
    assert (shop.item(id_)["quantity"], shop.row(id_, "quantity")) == (2, 2)


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
    shop.agree()


@pytest.mark.parametrize("killed", [False, True])
def test_one_who_slept_does_not_raise_the_quantity(
    shop: Shop, stripe: Running, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """Its refund is settled by another, and a later one lowers the quantity further, before it sets its own; perhaps in
    Stripe only, and not yet in the database."""
    id_, later = shop.subscribe(3000, 3), ("--amount", "11", "--quantity", "1")
    shop.killed(REVOKING["the item is read"], id_, "--amount", "10", "--quantity", "1")
    with shop.pipeline().open_session() as conn:
        refund, on = ledger.find_refunds(conn)[0], opened(stripe)
        whole = on.set_quantity

        def late(*arguments: Any) -> None:
            monkeypatch.undo()
            assert shop.resume(str(refund.id)).code == 0
            if killed:
                shop.killed(REVOKING["the quantity is set"], id_, *later)
            else:
                assert shop.refund(id_, *later).code == 0
            whole(*arguments)

        monkeypatch.setattr(on, "set_quantity", late)
        assert execute.settle_refund(conn, on, refund).refund.is_settled
    assert shop.item(id_)["quantity"] == 1
    assert shop.resume().code == 0
    assert (shop.item(id_)["quantity"], shop.row(id_, "quantity")) == (1, 1)


def test_seats_bought_meanwhile_stay(shop: Shop, stripe: Running) -> None:
    id_ = shop.subscribe(3000, 3)
    shop.killed(f"{REFUNDS}:revoke_quantity:before", id_, "--amount", "10", "--quantity", "1")
    item = shop.item(id_)
    item["quantity"] = 10
    assert shop.resume().code == 0
    assert item["quantity"] == 9


def test_seats_bought_meanwhile_are_counted_once_by_two_who_settle(
    shop: Shop, stripe: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = shop.subscribe(3000, 3)
    shop.killed(f"{REFUNDS}:revoke_quantity:before", id_, "--amount", "10", "--quantity", "1")
    item = shop.item(id_)
    item["quantity"] = 10
    with shop.pipeline().open_session() as conn:
        refund, on = ledger.find_refunds(conn)[0], opened(stripe)
        whole = on.get_subscription_item

        def late(*arguments: Any, **named: Any) -> gateway.SubscriptionItem:
            monkeypatch.undo()
            assert shop.resume(str(refund.id)).code == 0
            return whole(*arguments, **named)

        monkeypatch.setattr(on, "get_subscription_item", late)
        assert execute.settle_refund(conn, on, refund).refund.is_settled
    assert item["quantity"] == 9


@pytest.mark.parametrize("bought", [1, 3])
def test_seats_bought_after_stripe_was_told_stay(shop: Shop, bought: int) -> None:
    """Stripe has heard of the refund, the database has not: nothing is taken off a second time."""
    id_ = shop.subscribe(3000, 3)
    shop.killed(REVOKING["the quantity is set"], id_, "--amount", "10", "--quantity", "1")
    shop.item(id_)["quantity"] += bought
    shop.one('UPDATE "Subscription" SET quantity = %s WHERE id = %s RETURNING id', 2 + bought, id_)
    assert shop.resume().code == 0
    assert (shop.item(id_)["quantity"], shop.row(id_, "quantity")) == (2 + bought, 2 + bought)


def test_a_cancellation_that_was_taken_back_after_stripe_was_told(shop: Shop, stripe: Running) -> None:
    id_ = shop.subscribe(3000, 3)
    shop.killed(f"{GATEWAY}.cancel_at_period_end:after", id_)
    stripe.state.get("subscription", ACCOUNT, f"sub_{id_}", False)["cancel_at_period_end"] = False
    assert shop.resume().code == 0
    assert len(stripe.calls("POST", "/v1/subscriptions")) == 1
    assert shop.row(id_, "cancelAtPeriodEnd") is False


@pytest.mark.parametrize(
    ("part", "left", "cancels"), [(("--amount", "10", "--quantity", "1"), 2, False), (("--full",), 3, True)]
)
def test_a_subscription_whose_row_goes_while_its_refund_is_pending(
    shop: Shop, stripe: Running, part: tuple[str, ...], left: int, cancels: bool
) -> None:
    """Only Stripe knows what is to be left."""
    id_ = shop.subscribe(3000, 3)
    stripe.state.next_statuses.append("pending")
    assert shop.refund(id_, *part).code == 6
    shop.one('DELETE FROM "SubscriptionInvoice" WHERE "stripeSubscriptionId" = %s RETURNING id', f"sub_{id_}")
    shop.one('DELETE FROM "Subscription" WHERE id = %s RETURNING id', id_)
    made(stripe)[0]["status"] = "succeeded"
    assert shop.resume().code == 0
    assert shop.item(id_)["quantity"] == left
    assert stripe.state.get("subscription", ACCOUNT, f"sub_{id_}", False)["cancel_at_period_end"] is cancels


def test_a_repeat_after_the_money_came_back_takes_no_second_seat(shop: Shop, stripe: Running) -> None:
    id_, part = shop.subscribe(3000, 3), ("--amount", "10", "--quantity", "1")
    first = shop.refund(id_, *part).json["refund"]["id"]
    made(stripe)[0]["status"] = "failed"
    late = shop.run("refunds", "resume", first)
    assert (late.code, "1 stay revoked" in late.stdout) == (5, True)
    again = shop.refund(id_, *part, "--request-id", "another")
    assert (again.code, again.json["error"]["code"]) == (5, "revoked-already")
    assert shop.refund(id_, "--amount", "10").code == 0, "the money alone"
    assert shop.item(id_)["quantity"] == 2
    assert shop.refund(id_, *part, "--again").code == 0, "the money is back for good; this is another seat"
    assert shop.item(id_)["quantity"] == 1


def test_all_of_a_subscription_again_after_the_money_came_back(shop: Shop, stripe: Running) -> None:
    id_ = shop.subscribe(3000, 3)
    first = shop.refund(id_, "--full").json["refund"]["id"]
    made(stripe)[0]["status"] = "failed"
    assert shop.resume(first).code == 5
    assert shop.refund(id_, "--full").code == 0
    assert shop.row(id_, "cancelAtPeriodEnd", "quantity") == (True, 3)
    shop.agree()


def test_a_quantity_that_can_not_be_revoked_any_more_is_given_up(shop: Shop, stripe: Running) -> None:
    id_ = shop.subscribe(3000, 3)
    shop.killed(f"{REFUNDS}:revoke_quantity:before", id_, "--amount", "10", "--quantity", "1")
    found = stripe.state.get("subscription", ACCOUNT, f"sub_{id_}", False)
    found["items"]["data"].append({"id": "si_2", "quantity": 1})
    assert shop.resume().code == 6
    given_up = shop.resume(str(shop.one("SELECT id FROM stackctl.refund")), "--give-up", "--yes")
    assert (given_up.code, given_up.json["refund"]["status"]) == (0, "succeeded")
    assert (shop.item(id_)["quantity"], shop.row(id_, "quantity")) == (3, 3)
    shop.agree()
    assert shop.run("refunds", "preview", id_, "--json").json["entries"][0]["quantity_left"] == 3

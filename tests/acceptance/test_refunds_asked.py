"""What can be asked of a refund beside an amount of dollars: other currencies, percentages, an end without money."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stackctl.cli.arguments import name_operator
from tests.shop import made, refused

if TYPE_CHECKING:
    import uuid

    from tests.shop import Shop
    from tests.stripe_fake import Running


def test_yen_in_full_and_in_part(shop: Shop, stripe: Running) -> None:
    """Whole ones, for people and for Stripe."""
    bought = shop.buy(500, intent={"currency": "jpy"})
    assert "500 JPY remain" in shop.run("refunds", "preview", bought).stdout
    assert refused(shop.refund(bought, "--amount", "1.50")) == (2, "schema-error")
    over = shop.refund(bought, "--amount", "501")
    assert (refused(over), over.json["error"]["details"]["remaining"]) == ((5, "amount-over-remainder"), "500")
    part = shop.refund(bought, "--amount", "200").json["refund"]
    assert (part["amount"], part["currency"], part["amount_usd"]) == ("200", "jpy", None)
    assert part["entries"] == [
        {"entry_index": 0, "quantity": 0, "amount": "200", "currency": "jpy", "amount_usd": None}
    ]  # fmt: skip
    rest = shop.run("refunds", "create", bought, "--full", "--yes")
    assert rest.stdout.startswith("refunded 300 JPY, 1 revoked")
    assert [(one["amount"], one["currency"]) for one in made(stripe)] == [(200, "jpy"), (300, "jpy")]
    assert all(shop.row(bought, "refundedAt", "revokedAt"))
    assert "300 JPY" in shop.run("refunds", "list").stdout
    shop.agree()


@pytest.mark.parametrize(
    ("currency", "paid", "asked", "units", "shown"),
    [("kwd", 5130, "2.5", 2500, "2.500"), ("kwd", 5130, "50%", 2560, "2.560"), ("isk", 70_000, "50%", 35_000, "350.00"),
     ("ugx", 500, "50%", 200, "2.00"), ("huf", 1045, "10.45", 1045, "10.45"), ("eur", 1999, "50%", 999, "9.99"),
     ("usd", 1999, "33.3%", 665, "6.65")],
)  # fmt: skip
def test_each_currency_as_stripe_counts_it(
    shop: Shop, stripe: Running, currency: str, paid: int, asked: str, units: int, shown: str
) -> None:
    """The stand-in refuses amounts that Stripe would."""
    bought = shop.buy(paid, intent={"currency": currency})
    result = shop.refund(bought, "--amount", asked, "--request-id", "r")
    assert (result.code, result.json["refund"]["amount"]) == (0, shown), result
    assert shop.refund(bought, "--amount", asked, "--request-id", "r").json == result.json
    assert refused(shop.refund(bought, "--amount", "0.75%", "--request-id", "r")) == (5, "request-id-reused")
    assert [one["amount"] for one in made(stripe)] == [units]


def test_a_percentage_is_of_what_was_paid(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    asked = shop.run("refunds", "create", bought, "--amount", "50%")
    assert asked.code == 5
    assert "Refund 9.99 USD (50% of what was paid, rounded down; test money) of Lifetime" in " ".join(
        asked.stderr.split()
    )
    assert refused(shop.refund(bought, "--amount", "0.01%")) == (2, "schema-error"), "it comes to nothing"
    assert shop.refund(bought, "--amount", "50%").code == 0
    assert refused(shop.refund(bought, "--amount", "50%")) == (5, "refunded-moments-ago")
    assert shop.refund(bought, "--amount", "50%", "--again").code == 0
    assert refused(shop.refund(bought, "--amount", "50%", "--again")) == (5, "amount-over-remainder")
    assert [one["amount"] for one in made(stripe)] == [999, 999]


def test_who_refunded_it(shop: Shop, stripe: Running) -> None:
    first, second = shop.buy(1999), shop.buy(1999)
    assert shop.refund(first, "--amount", "1", "--by", "Ada of support").json["refund"]["by"] == "Ada of support"
    refund = shop.refund(second, "--amount", "2").json["refund"]
    assert refund["by"] == name_operator()
    assert [one["metadata"]["stackctl_by"] for one in made(stripe)] == ["Ada of support", name_operator()]
    assert f"UTC by {name_operator()}" in shop.run("refunds", "show", refund["id"]).stdout
    listed = shop.run("refunds", "list", "-o", "csv").stdout
    assert "Ada of support" in listed
    assert refused(shop.refund(first, "--amount", "1", "--by", "\n")) == (2, "usage")


def item_and_row(shop: Shop, id_: uuid.UUID) -> tuple[int, Any]:
    return shop.item(id_)["quantity"], shop.row(id_, "quantity", "cancelAtPeriodEnd")


def test_money_without_revoking(shop: Shop, stripe: Running) -> None:
    subscription, bought = shop.subscribe(3000, 3), shop.buy(1999, 2)
    assert shop.refund(subscription, "--full", "--end", "no").code == 0
    assert item_and_row(shop, subscription) == (3, (3, False))
    assert shop.refund(bought, "--full", "--revoke", "1").code == 0
    assert (shop.row(bought, "revokedAt"), made(stripe)[-1]["amount"]) == (None, 1999)
    assert refused(shop.refund(subscription, "--amount", "1")) == (5, "already-refunded")


def test_revoking_without_money(shop: Shop, stripe: Running) -> None:
    """Though all of it was refunded."""
    subscription, bought = shop.subscribe(3000, 3), shop.buy(1999, 2)
    assert shop.refund(bought, "--full", "--revoke", "0").code == 0
    calls = len(stripe.calls("POST"))
    assert "Refund nothing (test money) of Lifetime" in shop.run(
        "refunds", "create", bought, "--amount", "0", "--revoke", "2"
    ).stderr.replace("\n", " ")
    result = shop.refund(bought, "--amount", "0", "--revoke", "2", "--request-id", "r")
    assert (result.code, result.json["refund"]["amount_usd"], result.json["refund"]["status"]) == (
        0,
        "0.00",
        "succeeded",
    )
    assert shop.row(bought, "revokedAt") is not None
    assert len(stripe.calls("POST")) == calls, "Stripe has nothing to do"
    assert shop.refund(bought, "--amount", "0", "--revoke", "2", "--request-id", "r").json == result.json
    assert refused(shop.refund(bought, "--amount", "0", "--revoke", "1")) == (5, "quantity-over-remainder")
    for nothing in (("--amount", "0"), ("--amount", "0", "--revoke", "0")):
        assert refused(shop.refund(subscription, *nothing)) == (2, "schema-error")
    assert shop.refund(subscription, "--amount", "0", "--revoke", "1").code == 0
    assert item_and_row(shop, subscription) == (2, (2, False))
    assert shop.run("refunds", "list", "--reconcile").code == 0
    shop.agree()


def test_a_subscription_ends_when_it_is_said(shop: Shop, stripe: Running) -> None:
    for_period, now, later = shop.subscribe(), shop.subscribe(), shop.subscribe()
    assert shop.refund(for_period, "--amount", "5", "--end", "period").code == 0
    assert item_and_row(shop, for_period) == (3, (3, True))
    result = shop.run("refunds", "create", now, "--amount", "0", "--end", "now", "--yes")
    assert (result.code, result.stdout.split("\n")[0]) == (0, "refunded nothing, 3 revoked; the subscription has ended")
    assert stripe.state.get("subscription", "acct_shop", f"sub_{now}", False)["status"] == "canceled"
    assert shop.row(now, "status") == "canceled"
    assert all(shop.row(now, "endedAt", "canceledAt"))
    # With its period first, and then at once.
    assert shop.refund(later, "--full").code == 0
    assert shop.refund(later, "--amount", "0", "--end", "now").code == 0
    assert shop.row(later, "status") == "canceled"
    assert [call.path for call in stripe.calls("DELETE")] == [f"/v1/subscriptions/sub_{one}" for one in (now, later)]
    for contradiction in (("--end", "no", "--revoke", "3"), ("--end", "now", "--revoke", "1")):
        assert refused(shop.refund(shop.subscribe(), "--amount", "1", *contradiction)) == (2, "usage")
    shop.agree()


POINTS = tuple(
    f"stackctl.payments.{point}"
    for point in (
        "refunds.execute:plan_refund:after", "refunds.ledger:mark_submitted:after",
        "refunds.ledger:record_status:after", "refunds.execute:_record:after", "gateway:Gateway.cancel_now:before",
        "gateway:Gateway.cancel_now:after", "purchases:lower_quantity:after", "refunds.ledger:mark_revoked:after",
    )
)  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_an_end_without_money_killed_when(shop: Shop, stripe: Running, point: str) -> None:
    id_ = shop.subscribe()
    shop.killed(point, id_, "--amount", "0", "--end", "now")
    assert shop.resume().code == 0
    assert (shop.row(id_, "status"), len(stripe.calls("DELETE"))) == ("canceled", 1)
    assert shop.one("SELECT status, revoked, stripe_refund FROM stackctl.refund") == ("succeeded", True, None)
    shop.agree()


NOTE_POINTS = tuple(
    f"stackctl.payments.{point}"
    for point in (
        "gateway:Gateway.preview_credit_note:after", "refunds.execute:plan_refund:after",
        "refunds.ledger:mark_submitted:after", "gateway:Gateway.create_refund:before",
        "gateway:Gateway.create_refund:after", "refunds.ledger:record_status:after", "refunds.execute:_record:after",
    )
)  # fmt: skip


def test_a_credit_note(shop: Shop, stripe: Running) -> None:
    """Stripe makes the refund with it, and is asked first whether it would."""
    id_ = shop.subscribe(3000, 3)
    result = shop.refund(id_, "--amount", "12", "--credit-note", "--request-id", "r")
    (note,) = stripe.state.all("credit_note", "acct_shop", False)
    refund = result.json["refund"]
    assert (refund["credit_note"], note["total"], note["invoice"]) == (note["id"], 1200, f"in_0_{id_}")
    assert note["refunds"] == [{"refund": refund["stripe_refund_id"], "amount_refunded": 1200, "type": "refund"}]
    assert [call.path for call in stripe.calls("POST")] == ["/v1/credit_notes"]
    assert shop.refund(id_, "--amount", "12", "--credit-note", "--request-id", "r").json == result.json
    assert refused(shop.refund(id_, "--amount", "12", "--request-id", "r")) == (5, "request-id-reused")
    rest = shop.run("refunds", "create", id_, "--full", "--credit-note", "--end", "no", "--yes")
    second = stripe.state.all("credit_note", "acct_shop", False)[0]
    assert (second["total"], f"credit note {second['id']} of invoice in_0_{id_}" in rest.stdout) == (1800, True)
    assert shop.row(id_, "refundedAt") is not None
    assert shop.run("refunds", "list", "--reconcile").code == 0
    assert refused(shop.refund(shop.buy(500), "--full", "--credit-note")) == (2, "usage")
    assert refused(shop.refund(shop.subscribe(), "--amount", "0", "--revoke", "1", "--credit-note")) == (2, "usage")
    shop.agree()


def test_a_credit_note_that_stripe_would_not_make(shop: Shop, stripe: Running) -> None:
    """It is asked before anything is written: of an invoice whose total is noted already, say."""
    id_ = shop.subscribe(3000)
    stripe.state.get("invoice", "acct_shop", f"in_0_{id_}", False)["total"] = 1000
    assert refused(shop.refund(id_, "--amount", "12", "--credit-note")) == (5, "stripe-refused")
    assert shop.one("SELECT count(*) FROM stackctl.refund") == 0
    assert not stripe.calls("POST")


@pytest.mark.parametrize("point", NOTE_POINTS)
def test_a_credit_note_killed_when(shop: Shop, stripe: Running, point: str) -> None:
    id_ = shop.subscribe()
    asked = ("--amount", "5", "--credit-note", "--request-id", "r")
    shop.killed(point, id_, *asked)
    assert shop.resume().code == 0
    assert shop.refund(id_, *asked).code == 0
    (note,) = stripe.state.all("credit_note", "acct_shop", False)
    assert [one["id"] for one in made(stripe)] == [note["refunds"][0]["refund"]]
    assert shop.one("SELECT status, credit_note FROM stackctl.refund") == ("succeeded", note["id"])
    shop.agree()


@pytest.mark.parametrize("kind", ["drop-after", "500-after", "empty-200", "drop-before"])
def test_a_credit_note_is_answered_with(shop: Shop, stripe: Running, kind: Any) -> None:
    id_ = shop.subscribe()
    stripe.fault(kind, method="POST")
    asked = ("--amount", "5", "--credit-note", "--request-id", "r")
    assert shop.refund(id_, *asked).code in (0, 6)
    assert shop.resume().code == 0
    assert shop.refund(id_, *asked).code == 0
    assert len(stripe.state.all("credit_note", "acct_shop", False)) == len(made(stripe)) == 1
    shop.agree()

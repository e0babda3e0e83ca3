"""Purchases by what people have in hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.backend import OTHER, add_channel, add_user
from tests.shop import ACCOUNT

if TYPE_CHECKING:
    import uuid

    from tests.shop import Shop


def preview(shop: Shop, *arguments: str) -> Any:
    return shop.run("refunds", "preview", *arguments, "--json")


def is_found(shop: Shop, named: str, id_: uuid.UUID, invoice: str | None = None) -> bool:
    document = preview(shop, named).json
    return (document.get("purchase_id"), document.get("invoice")) == (str(id_), invoice)


def test_a_payment_is_found_by_each_of_its_ids(shop: Shop) -> None:
    state = shop.stripe.state
    bought, subscribed = shop.buy(2499), shop.subscribe(renewals=2)
    first, renewal = f"in_0_{subscribed}", f"in_2_{subscribed}"
    intent = shop.one('SELECT "stripePaymentIntentId" FROM "OneTimePurchase" WHERE id = %s', bought)
    charge = state.get("payment_intent", ACCOUNT, intent, False)["latest_charge"]
    elsewhere = state.refund(ACCOUNT, {"payment_intent": intent, "amount": 99}, False)["id"]
    for named in (str(bought), str(bought).upper(), intent, charge, elsewhere):
        assert is_found(shop, named, bought), named
    assert is_found(shop, f"sub_{subscribed}", subscribed, first)
    assert is_found(shop, renewal, subscribed, renewal)
    payment = next(one for one in state.all("invoice_payment", ACCOUNT, False) if one["invoice"] == renewal)
    paid = payment["payment"]["payment_intent"]
    charge = state.get("payment_intent", ACCOUNT, paid, False)["latest_charge"]
    for named in (paid, charge):
        assert is_found(shop, named, subscribed, renewal), named
    made = shop.run("refunds", "create", charge, "--amount", "1.00", "--yes", "--json").json["refund"]
    assert (made["purchase_id"], made["invoice"]) == (str(subscribed), renewal)
    before = len(shop.stripe.calls())
    assert is_found(shop, made["stripe_refund_id"], subscribed, renewal)
    assert len(shop.stripe.calls()) - before == 2, "the ledger knows our refunds: only the balance is asked for"
    listed = shop.run("refunds", "list", "--purchase", renewal, "-o", "name")
    assert listed.stdout.split() == [made["id"]]
    assert shop.run("refunds", "list", "--purchase", intent, "-o", "name").stdout == ""


def test_the_last_payment_of_a_subscription(shop: Shop) -> None:
    subscribed = shop.subscribe(renewals=2)
    newest = shop.one('SELECT "stripeInvoiceId" FROM "SubscriptionInvoice" ORDER BY "createdAt" DESC LIMIT 1')
    shop.one('UPDATE "SubscriptionInvoice" SET status = %s WHERE "stripeInvoiceId" = %s RETURNING id', "open", newest)
    assert preview(shop, str(subscribed), "--latest").json["invoice"] == f"in_1_{subscribed}"
    made = shop.run("refunds", "create", str(subscribed), "--latest", "--amount", "1", "--yes", "--json")
    assert made.json["refund"]["invoice"] == f"in_1_{subscribed}"
    for arguments in ((str(subscribed), "--invoice", newest), (str(shop.buy()),)):
        assert preview(shop, *arguments, "--latest").json["error"]["code"] == "usage", arguments
    assert preview(shop, f"in_1_{subscribed}", "--invoice", newest).json["error"]["code"] == "usage"


def test_a_customer_stands_for_the_only_purchase(shop: Shop) -> None:
    with shop.connect() as conn:
        add_channel(conn, user := add_user(conn), "ada@example.com")
    assert preview(shop, "ada@example.com").json["error"]["code"] == "purchase-not-found"
    bought = shop.buy(customerId=str(user))
    stripes = shop.stripe.state.add("customer", ACCOUNT, metadata={"customerId": str(user), "customerType": "USER"})
    for named in ("Ada@example.com", str(user), stripes["id"]):
        assert is_found(shop, named, bought), named
    made = shop.run("refunds", "create", "ada@example.com", "--amount", "1", "--yes", "--json").json["refund"]["id"]
    assert shop.run("refunds", "list", "--customer", "Ada@example.com", "-o", "name").stdout.split() == [made]
    assert shop.run("refunds", "list", "--customer", "eve@example.com").code == 2
    shop.buy(customerId="shop-7", customerType="CUSTOM")
    assert preview(shop, "shop-7").code == 0
    more = shop.subscribe(customerId=str(user), customerType="USER")
    for named in ("ada@example.com", str(user), stripes["id"]):
        several = preview(shop, named)
        assert (several.code, several.json["error"]["code"]) == (2, "several-purchases"), named
        assert sorted(several.json["error"]["details"]["purchases"]) == sorted([str(bought), str(more)])


def test_thousands_of_purchases_are_counted_not_listed(shop: Shop) -> None:
    with shop.connect() as conn:
        conn.execute(
            'INSERT INTO "OneTimePurchase" ("tenancyId", id, "customerId", "customerType", product, quantity,'
            " \"creationSource\") SELECT t.id, gen_random_uuid(), 'c', 'CUSTOM', '{}', 1, 'API_GRANT'"
            ' FROM "Tenancy" AS t, generate_series(1, 1000)'
        )
    several = shop.run("refunds", "preview", "c")
    assert several.code == 2
    assert "c has 2000 purchases, the newest:" in several.stderr
    assert len(several.stderr.splitlines()) < 20


@pytest.mark.parametrize("named", ["pi_none", "ch_none", "in_none", "sub_none", "re_none", "cus_none", "nobody", "a b"])
def test_what_nobody_knows(shop: Shop, named: str) -> None:
    result = preview(shop, named)
    assert (result.code, result.json["error"]["code"]) == (2, "purchase-not-found"), result


def test_one_id_in_two_tenancies(shop: Shop) -> None:
    shop.purchase(stripePaymentIntentId="pi_twice")
    other = shop.purchase(stripePaymentIntentId="pi_twice", tenancy=OTHER)
    assert preview(shop, "pi_twice").json["error"]["code"] == "several-purchases"
    shop.stripe.state.payment(ACCOUNT, id="pi_twice")
    found = preview(shop, "pi_twice", "--tenancy", str(OTHER))
    assert (found.json["purchase_id"], found.json["tenancy"]) == (str(other), str(OTHER))

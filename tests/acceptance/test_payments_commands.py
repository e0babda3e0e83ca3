"""stackctl payments status and test-mode."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.backend import MINE, add_channel, add_user
from tests.shop import ACCOUNT

if TYPE_CHECKING:
    from tests.shop import Shop
    from tests.stripe_fake import Running


def payments(shop: Shop, *arguments: str) -> Any:
    return shop.run("payments", *arguments, "--tenancy", str(MINE))


@pytest.mark.quick
def test_what_is_due_is_named(shop: Shop, stripe: Running) -> None:
    stripe.state.add("account", id=ACCOUNT, details_submitted=False, charges_enabled=True,
                     requirements={"currently_due": ["external_account"]})  # fmt: skip
    document = payments(shop, "status", "--json").json
    assert document == {
        "account": ACCOUNT, "status": "setup-incomplete", "disabled_reason": None, "past_due": [], "errors": [],
        "due": ["external_account"], "charges_enabled": True, "payouts_enabled": False, "key_mode": "test",
        "project_mode": "test", "earlier_accounts": [], "modes_differ": False,
    }  # fmt: skip
    assert "due: external_account" in payments(shop, "status").stdout


def test_what_keeps_an_account_from_taking_money_comes_first(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(2499)
    assert shop.run("refunds", "create", str(bought), "--entry", "0:1:24.99", "--yes").code == 0
    shop.one('UPDATE "Project" SET "stripeAccountId" = %s RETURNING id', "acct_new")
    stripe.state.add(
        "account", id="acct_new", details_submitted=True, charges_enabled=False,
        requirements={
            "currently_due": ["external_account", "person.dob"], "past_due": ["person.dob"],
            "disabled_reason": "requirements.past_due",
            "errors": [{"code": "invalid_dob_age_under_minimum", "reason": "too young", "requirement": "person.dob"}],
        },
    )  # fmt: skip
    result = payments(shop, "status")
    assert result.stdout.splitlines()[:5] == [
        "disabled  requirements.past_due",
        "          past due: person.dob",
        "          person.dob: too young",
        "account   acct_new",
        f"          was connected to {ACCOUNT}, whose payments are refunded there",
    ]
    assert payments(shop, "status", "--json").json["earlier_accounts"] == [ACCOUNT]


def test_a_key_of_the_other_mode_is_pointed_out(shop: Shop, stripe: Running) -> None:
    stripe.state.add("account", id=ACCOUNT, details_submitted=True, requirements={})
    result = payments(shop, "status", "--stripe-api-key", "sk_live_fake")
    assert result.code == 0
    assert "the key is a live key, and the project is in test mode" in result.stderr
    assert "sk_live_fake" not in result.stdout + result.stderr


def test_an_account_that_is_gone(shop: Shop) -> None:
    shop.one('UPDATE "Project" SET "stripeAccountId" = %s RETURNING id', "acct_gone")
    result = payments(shop, "status", "--json")
    assert (result.code, result.json["error"]["code"]) == (5, "stripe-not-found")


def config(url: str) -> Any:
    with psycopg.connect(url) as conn:
        row = conn.execute(
            'SELECT e.config FROM "EnvironmentConfigOverride" AS e '
            'JOIN "Tenancy" AS t USING ("projectId", "branchId") WHERE t.id = %s',
            (MINE,),
        ).fetchone()
    return row and row[0]


def test_test_mode_is_one_key_of_the_configuration(shop: Shop, migrated_db: str) -> None:
    assert payments(shop, "test-mode").stdout == "test mode is on\n"
    assert payments(shop, "test-mode", "off").code == 5
    assert payments(shop, "test-mode", "off", "--dry-run").code == 0
    assert config(migrated_db) is None
    assert payments(shop, "test-mode", "off", "--yes").stdout == "test mode is now off\n"
    assert config(migrated_db) == {"payments.testMode": False}
    with psycopg.connect(migrated_db) as conn:
        held = {"payments": {"testMode": False, "products": {"a": 1}}, "payments.testMode": False, "x": 1}
        conn.execute('UPDATE "EnvironmentConfigOverride" SET config = %s', (json.dumps(held),))
    assert payments(shop, "test-mode", "off").stdout == "test mode is off\n"
    assert payments(shop, "test-mode", "on", "--yes", "--json").json["changed"] is True
    assert config(migrated_db) == {"payments": {"products": {"a": 1}}, "payments.testMode": True, "x": 1}


PRODUCTS = {
    "free": {"displayName": "Free", "customerType": "user", "prices": "include-by-default"},
    "pro": {"displayName": "Pro", "customerType": "user", "prices": {
        "m": {"USD": "9.99", "interval": [1, "month"]}, "y": {"USD": "99", "interval": [2, "year"]}}},
    "coins": {"displayName": "Coins", "customerType": "user", "stackable": True, "prices": {"p": {"USD": "1"}}},
    "gift": {"displayName": "Gift", "customerType": "user", "serverOnly": True, "prices": {"p": {"USD": "1"}}},
    "seats": {"displayName": "Seats", "customerType": "team", "prices": {"p": {"USD": "5", "interval": [1, "month"]}}},
}  # fmt: skip


def sell(migrated_db: str) -> None:
    with psycopg.connect(migrated_db) as conn:
        conn.execute(
            'INSERT INTO "EnvironmentConfigOverride" ("projectId", "branchId", "updatedAt", config)'
            " SELECT \"projectId\", \"branchId\", now(), %s FROM \"Tenancy\" WHERE id = %s",
            (json.dumps({"payments.products": PRODUCTS}), MINE),
        )  # fmt: skip


def test_products_by_the_type_of_customer(shop: Shop, migrated_db: str) -> None:
    assert payments(shop, "products").stdout == "no products\n"
    sell(migrated_db)
    listed = payments(shop, "products", "--json").json
    assert [one["id"] for one in listed["products"]] == ["coins", "free", "gift", "pro", "seats"]
    assert "may_buy" not in listed["products"][0]
    teams = payments(shop, "products", "--customer-type", "team").stdout
    assert "Seats" in teams
    assert "Pro" not in teams
    assert "9.99 USD every month or 99 USD every 2 years" in payments(shop, "products").stdout


def test_what_a_customer_owns_and_may_buy(shop: Shop, migrated_db: str) -> None:
    sell(migrated_db)
    with psycopg.connect(migrated_db, autocommit=True) as conn:
        user = str(add_user(conn))
    revoked = shop.purchase(customerId=user, productId="pro", revokedAt="2026-01-01")
    ending = shop.subscribe(customerId=user, customerType="USER", productId="pro", cancelAtPeriodEnd=True)
    coins = shop.purchase(customerId=user, productId="coins")
    shop.purchase(customerId="someone else", productId="gift")
    found = payments(shop, "products", "--customer", user, "--json").json
    assert found["customer_type"] == "user"
    assert {one["id"]: one["owned"] for one in found["purchases"]} == {
        str(revoked): False, str(ending): True, str(coins): True,
    }  # fmt: skip
    assert {one["id"]: one["why_not"] for one in found["products"]} == {
        "coins": None, "free": "included for everyone", "gift": "only the server can grant it",
        "pro": "owned already, and not stackable",
    }  # fmt: skip
    # It grants until it has ended, whatever its status.
    shop.one('UPDATE "Subscription" SET status = %s RETURNING id', "canceled")
    found = payments(shop, "products", "--customer", user, "--json").json
    assert {one["id"]: one["may_buy"] for one in found["products"]}["pro"] is False
    shop.one('UPDATE "Subscription" SET "endedAt" = %s RETURNING id', "2026-11-01")
    found = payments(shop, "products", "--customer", user, "--json").json
    assert {one["id"]: one["may_buy"] for one in found["products"]}["pro"] is True
    text = payments(shop, "products", "--customer", user).stdout
    assert "active" in text
    assert "revoked" in text


def test_customers_that_are_not_there(shop: Shop, migrated_db: str) -> None:
    result = payments(shop, "products", "--customer", "x", "--customer-type", "team", "--json")
    assert (result.code, result.json["error"]["code"]) == (2, "unknown-customer")
    unknown = payments(shop, "products", "--customer", "x", "--json")
    assert (unknown.code, unknown.json["error"]["code"]) == (2, "unknown-customer")
    unknown = payments(shop, "products", "--customer", "nobody@example.com", "--json")
    assert (unknown.code, unknown.json["error"]["code"]) == (2, "unknown-user")
    custom = payments(shop, "products", "--customer", "x", "--customer-type", "custom")
    assert custom.stdout == "has bought nothing\n\nno products for a custom customer\n"


def test_a_customer_is_found_by_address_and_in_capitals(shop: Shop, migrated_db: str) -> None:
    sell(migrated_db)
    with psycopg.connect(migrated_db, autocommit=True) as conn:
        add_channel(conn, id_ := add_user(conn), "ada@example.com")
    user = str(id_)
    bought = shop.purchase(customerId=user, productId="coins")
    for named in (user.upper(), "ada@example.com", "Ada@Example.com"):
        found = payments(shop, "products", "--customer", named, "--json").json
        assert (found["customer"], [one["id"] for one in found["purchases"]]) == (user, [str(bought)]), named
    shop.purchase(customerId="shop-7", customerType="CUSTOM", productId="coins")
    assert payments(shop, "products", "--customer", "shop-7", "--json").json["customer_type"] == "custom"


def test_part_of_a_purchase_that_was_revoked(shop: Shop) -> None:
    bought = shop.buy(7497, 3, customerId="shop-7", customerType="CUSTOM", productId="coins")
    assert shop.run("refunds", "create", str(bought), "--entry", "0:2:49.98", "--yes").code == 0
    (found,) = payments(shop, "products", "--customer", "shop-7", "--json").json["purchases"]
    assert (found["quantity"], found["revoked_quantity"], found["owned"]) == (3, 2, True)
    assert "3 bought, 2 revoked: 1" in payments(shop, "products", "--customer", "shop-7", "--wide").stdout


LINES = {
    "basic": {"displayName": "Basic", "productLineId": "plan", "prices": {"m": {"USD": "5", "interval": [1, "month"]}}},
    "plus": {"displayName": "Plus", "productLineId": "plan", "prices": {"m": {"USD": "9", "interval": [1, "month"]}}},
    "extra": {"displayName": "Extra", "isAddOnTo": {"basic": True, "plus": True}, "prices": {"m": {"USD": "1"}}},
    "other": {"displayName": "Other", "isAddOnTo": False, "prices": {"p": {"USD": "1"}}},
}


def test_add_ons_product_lines_and_blocked_purchases(shop: Shop, migrated_db: str) -> None:
    products = {id_: one | {"customerType": "custom"} for id_, one in LINES.items()}

    def configure(**more: Any) -> None:
        with psycopg.connect(migrated_db) as conn:
            conn.execute('DELETE FROM "EnvironmentConfigOverride"')
            conn.execute(
                'INSERT INTO "EnvironmentConfigOverride" ("projectId", "branchId", "updatedAt", config)'
                ' SELECT "projectId", "branchId", now(), %s FROM "Tenancy" WHERE id = %s',
                (json.dumps({"payments": {"products": products, **more}}), MINE),
            )

    def judge() -> dict[str, Any]:
        arguments = ("--customer", "shop-7", "--customer-type", "custom", "--json")
        found = payments(shop, "products", *arguments).json["products"]
        return {one["id"]: one["why_not"] or one["replaces"] or True for one in found}

    configure()
    assert judge() == {
        "basic": True, "plus": True, "other": True, "extra": "an add-on to basic or plus, which is not owned",
    }  # fmt: skip
    mine: dict[str, Any] = {
        "customerId": "shop-7",
        "customerType": "CUSTOM",
        "product": products["basic"],
        "productId": "basic",
    }
    subscribed = shop.subscribe(**mine)
    assert judge() == {
        "basic": "owned already, and not stackable", "plus": [str(subscribed)], "other": True, "extra": True,
    }  # fmt: skip
    assert "yes, replaces Basic" in payments(shop, "products", "--customer", "shop-7", "--wide").stdout
    shop.one('UPDATE "Subscription" SET "endedAt" = %s RETURNING id', "2026-11-01")
    shop.purchase(**mine)  # paid once: nothing ends by another one
    assert judge()["plus"] == "Basic of the same product line is owned"
    configure(blockNewPurchases=True)
    assert judge()["other"] == "new purchases are blocked"

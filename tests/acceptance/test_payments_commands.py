"""stackctl payments status and test-mode."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg

from tests.backend import MINE
from tests.shop import ACCOUNT

if TYPE_CHECKING:
    from tests.shop import Shop
    from tests.stripe_fake import Running


def payments(shop: Shop, *arguments: str) -> Any:
    return shop.run("payments", *arguments, "--tenancy", str(MINE))


def test_what_is_due_is_named(shop: Shop, stripe: Running) -> None:
    stripe.state.add("account", id=ACCOUNT, details_submitted=False, charges_enabled=True,
                     requirements={"currently_due": ["external_account"]})  # fmt: skip
    document = payments(shop, "status", "--json").json
    assert document == {
        "account": ACCOUNT, "status": "setup-incomplete", "due": ["external_account"], "charges_enabled": True,
        "payouts_enabled": False, "key_mode": "test", "project_mode": "test", "modes_differ": False,
    }  # fmt: skip
    assert "due: external_account" in payments(shop, "status").stdout


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

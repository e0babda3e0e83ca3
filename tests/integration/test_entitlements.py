"""What the backend's derived ledger says of purchases whose rows were revoked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import uuid

    from tests.shop import Shop

# As the backend makes it; its generated column and foreign key play no part here.
_LEDGER = """
CREATE TABLE "BulldozerStorageEngine" (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "keyPath" jsonb[] NOT NULL UNIQUE, "value" jsonb NOT NULL
)
"""


@pytest.fixture
def ledger(shop: Shop) -> Shop:
    with shop.connect() as conn:
        conn.execute(_LEDGER)
    return shop


def derive(shop: Shop, purchase: uuid.UUID, **data: Any) -> None:
    path = ["table", "external:payments-one-time-purchases", "storage", "rows", str(purchase)]
    with shop.connect() as conn:
        conn.execute(
            'INSERT INTO "BulldozerStorageEngine" ("keyPath", "value") VALUES (%s::jsonb[], %s)'
            ' ON CONFLICT ("keyPath") DO UPDATE SET "value" = excluded."value"',
            ([json.dumps(name) for name in path], json.dumps({"rowData": {"id": str(purchase), **data}})),
        )


def refund(shop: Shop, purchase: uuid.UUID, *arguments: str) -> Any:
    return shop.run("refunds", "create", str(purchase), *arguments, "--yes")


def test_a_purchase_that_the_backend_still_grants(ledger: Shop) -> None:
    bought = ledger.buy(2000, 2)
    derive(ledger, bought, revokedAtMillis=None)
    asked = ledger.run("refunds", "create", str(bought), "--full")
    assert "the backend grants it until its own ledger is brought up" in asked.stderr
    done = refund(ledger, bought, "--full", "--request-id", "one")
    assert done.code == 0
    assert "the backend still grants it" in done.stdout
    assert "payment_intent.succeeded" in done.stdout
    again = refund(ledger, bought, "--full", "--request-id", "one", "--json")
    assert again.json["entitlement"] == "behind"
    shown = ledger.run("refunds", "show", again.json["refund"]["id"])
    assert "the backend still grants it" in shown.stdout
    derive(ledger, bought, revokedAtMillis=1_790_000_000_000)
    again = refund(ledger, bought, "--full", "--request-id", "one", "--json")
    assert again.json["entitlement"] is None


def test_a_part_of_a_purchase_is_nothing_to_the_backend(ledger: Shop) -> None:
    bought = ledger.buy(2000, 2)
    derive(ledger, bought, revokedAtMillis=None)
    assert refund(ledger, bought, "--amount", "5", "--json").json["entitlement"] is None
    part = refund(ledger, bought, "--amount", "6", "--quantity", "1")
    assert "goes on granting all of them" in part.stdout


def test_what_comes_to_the_backend_by_itself(shop: Shop) -> None:
    plain = refund(shop, shop.buy(2000, 2), "--full", "--json")
    assert plain.json["entitlement"] is None
    with shop.connect() as conn:
        conn.execute(_LEDGER)
    assert refund(shop, shop.subscribe(), "--full", "--json").json["entitlement"] is None

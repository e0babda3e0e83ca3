"""What is not another's: tenancies, teams and payments that look alike; and what changes while somebody decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stackctl.core.errors import StateError
from stackctl.payments import purchases
from stackctl.payments.money import parse_amount
from stackctl.payments.refunds import balance, execute
from stackctl.payments.refunds.request import AskedEntry, RefundRequest, resolve_entries
from tests.backend import MINE, OTHER, add_user
from tests.shop import ACCOUNT, made, opened, refused

if TYPE_CHECKING:
    from tests.shop import Shop
    from tests.stripe_fake import Running

COPY = """
INSERT INTO "{table}" SELECT (jsonb_populate_record(t, jsonb_build_object('tenancyId', %s::uuid))).* FROM "{table}" AS t
"""


def test_one_subscription_in_two_tenancies(shop: Shop, stripe: Running) -> None:
    """The same id, and the same at Stripe: what is refunded of one leaves the other's rows alone."""
    id_ = shop.subscribe(3000, 3)
    with shop.connect() as conn:
        for table in ("Subscription", "SubscriptionInvoice"):
            conn.execute(COPY.format(table=table), (OTHER,))
    assert refused(shop.refund(id_, "--full")) == (2, "usage")
    columns = 'quantity, "cancelAtPeriodEnd", status::text, "refundedAt" IS NOT NULL, "endedAt" IS NOT NULL'

    def row(tenancy: object) -> object:
        return shop.one(f'SELECT {columns} FROM "Subscription" WHERE "tenancyId" = %s', tenancy)

    here = ("--tenancy", str(MINE))
    assert shop.refund(id_, "--amount", "10", "--revoke", "1", *here).code == 0
    assert (row(MINE), row(OTHER)) == ((2, False, "active", False, False), (3, False, "active", False, False))
    assert shop.refund(id_, "--full", "--end", "now", *here).code == 0
    assert (row(MINE), row(OTHER)) == ((2, False, "canceled", True, True), (3, False, "active", False, False))
    last = made(stripe)[-1]
    last["status"] = "failed"
    assert shop.resume(last["metadata"]["stackctl_refund_id"]).code == 5
    shop.one('UPDATE "Subscription" SET "refundedAt" = now() WHERE "tenancyId" = %s RETURNING id', OTHER)
    assert shop.run("refunds", "list", "--tenancy", str(OTHER), "--json").json["refunds"] == []


def test_one_purchase_in_two_tenancies(shop: Shop, stripe: Running) -> None:
    id_ = shop.buy(1999, 2)
    with shop.connect() as conn:
        conn.execute(COPY.format(table="OneTimePurchase"), (OTHER,))
    assert shop.refund(id_, "--full", "--tenancy", str(MINE)).code == 0
    marked = 'SELECT "refundedAt" IS NOT NULL, "revokedAt" IS NOT NULL FROM "OneTimePurchase" WHERE "tenancyId" = %s'
    assert (shop.one(marked, MINE), shop.one(marked, OTHER)) == ((True, True), (False, False))
    made(stripe)[0]["status"] = "failed"
    shop.one('UPDATE "OneTimePurchase" SET "refundedAt" = now() WHERE "tenancyId" = %s RETURNING id', OTHER)
    assert shop.resume(made(stripe)[0]["metadata"]["stackctl_refund_id"]).code == 5
    assert (shop.one(marked, MINE), shop.one(marked, OTHER)) == ((False, True), (True, False))


def test_a_team_with_the_id_of_a_user(shop: Shop) -> None:
    """What the one bought is not the other's."""
    with shop.connect() as conn:
        user = str(add_user(conn))
    own = shop.purchase(customerId=user)
    shop.purchase(customerId=user, customerType="TEAM")
    shop.subscribe(customerId=user, customerType="TEAM")
    found = shop.run("payments", "products", "--customer", user, "--tenancy", MINE, "--json").json
    assert [one["id"] for one in found["purchases"]] == [str(own)]


def test_one_of_two_disputes_was_won(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    intent = stripe.state.get("payment_intent", ACCOUNT, shop.row(bought, "stripePaymentIntentId"), False)
    stripe.state.get("charge", ACCOUNT, intent["latest_charge"], False)["disputed"] = True
    one, two = (
        stripe.state.add("dispute", ACCOUNT, payment_intent=intent["id"], livemode=False, status=status)
        for status in ("won", "under_review")
    )
    assert refused(shop.refund(bought, "--full")) == (5, "charge-disputed")
    one["status"], two["status"] = "needs_response", "won"
    assert refused(shop.refund(bought, "--full")) == (5, "charge-disputed")
    assert not stripe.calls("POST")
    one["status"] = "won"
    assert shop.refund(bought, "--full").code == 0


def test_the_quantity_changes_while_the_question_waits(shop: Shop, stripe: Running) -> None:
    bought, on = shop.subscribe(3000, 3), opened(stripe)
    wanted = RefundRequest(entries=(AskedEntry(0, 1, parse_amount("5")),))
    with shop.pipeline().open_session() as conn:
        found = balance.read_balance(conn, purchases.find_purchase(conn, bought), None, lambda: (ACCOUNT, on))
        entries = resolve_entries(wanted, found)
        shop.one('UPDATE "Subscription" SET quantity = 5 RETURNING id')
        with pytest.raises(StateError, match="changed by someone else") as caught:
            execute.plan_refund(conn, found, entries, wanted)
    assert caught.value.code == "changed-meanwhile"
    assert shop.one("SELECT count(*) FROM stackctl.refund") == 0


def test_sixty_invoices_are_previewed_with_four_calls(shop: Shop, stripe: Running) -> None:
    id_ = shop.subscribe(3000, 1, renewals=59)
    for arguments in ((), ("--latest",)):
        before = len(stripe.calls())
        result = shop.run("refunds", "preview", id_, *arguments, "--json")
        assert (result.code, len(result.json["invoices"])) == (0, 60)
        assert 0 < len(stripe.calls()) - before <= 4

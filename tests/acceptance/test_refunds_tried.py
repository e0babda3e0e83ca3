"""stackctl refunds: what trying to break it has found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from stackctl.payments import purchases
from stackctl.payments.money import parse_amount
from stackctl.payments.refunds import balance, execute
from stackctl.payments.refunds.request import AskedEntry, RefundRequest, resolve_entries
from tests import forked
from tests.backend import OTHER
from tests.shop import ACCOUNT, made, opened, refused

if TYPE_CHECKING:
    import uuid

    from tests.shop import Shop
    from tests.stripe_fake import Running


def test_a_request_that_asks_for_something_else(shop: Shop, stripe: Running) -> None:
    bought = shop.buy()
    assert shop.refund(bought, "--amount", "5", "--request-id", "r").code == 0
    assert refused(shop.refund(bought, "--full", "--request-id", "r")) == (5, "request-id-reused")
    subscribed = shop.subscribe(renewals=1)
    assert shop.refund(subscribed, "--full", "--request-id", "s").code == 0
    assert shop.refund(subscribed, "--full", "--request-id", "s").code == 0
    renewal = ("--invoice", f"in_1_{subscribed}")
    assert refused(shop.refund(subscribed, "--full", "--request-id", "s", *renewal)) == (5, "request-id-reused")
    assert len(made(stripe)) == 2


def test_what_can_not_be_revoked_is_known_before_the_money_goes(shop: Shop, stripe: Running) -> None:
    several, gone, differs = (shop.subscribe(3000, 3) for _ in range(3))

    def items(id_: uuid.UUID) -> list[dict[str, Any]]:
        return stripe.state.get("subscription", ACCOUNT, f"sub_{id_}", False)["items"]["data"]

    items(several).append({"id": "si_2", "quantity": 1})
    items(differs)[0]["quantity"] = 10
    stripe.state.get("subscription", ACCOUNT, f"sub_{gone}", False)["livemode"] = True
    codes = {several: "subscription-has-several-items", gone: "stripe-not-found", differs: "quantity-differs"}
    part = ("--amount", "5", "--quantity", "1")
    for id_, code in codes.items():
        assert refused(shop.refund(id_, *part)) == (5, code)
        assert refused(shop.refund(id_, *part, "--dry-run")) == (5, code)
        assert shop.refund(id_, "--amount", "5").code == 0, "the money alone"
    assert len(made(stripe)) == 3


def test_a_cancellation_far_away_is_brought_forward(shop: Shop, stripe: Running) -> None:
    id_ = shop.subscribe(3000, 1)
    found = stripe.state.get("subscription", ACCOUNT, f"sub_{id_}", False)
    found["cancel_at"] = 4_102_444_800
    found["items"]["data"][0]["current_period_end"] = 1_800_000_000
    assert shop.refund(id_, "--full").code == 0
    assert found["cancel_at_period_end"] is True


def test_money_that_came_back(shop: Shop, stripe: Running) -> None:
    """It had succeeded, and the bank did not take it."""
    bought = shop.buy(1999)
    refund = shop.refund(bought, "--full").json["refund"]
    made(stripe)[0]["status"] = "failed"
    assert shop.resume(refund["id"]).code == 5
    assert shop.row(bought, "refundedAt") is None
    assert shop.refund(bought, "--full").code == 0
    assert shop.row(bought, "refundedAt") is not None


def test_a_refund_of_the_dashboard_while_the_question_waits(
    shop: Shop, stripe: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing remains then, though the refunds were read before."""
    bought, on = shop.buy(1999), opened(stripe)
    with shop.pipeline().open_session() as conn:
        wanted = RefundRequest(entries=(AskedEntry(0, 0, parse_amount("15")),))
        found = balance.read_balance(conn, purchases.find_purchase(conn, bought), None, lambda: (ACCOUNT, on))
        refund = execute.plan_refund(conn, found, resolve_entries(wanted, found), wanted)
        stripe.state.refund(ACCOUNT, {"payment_intent": refund.intent, "amount": 499}, False)
        assert execute.execute_refund(conn, on, refund, found).refund.status == "succeeded"
    assert shop.row(bought, "refundedAt") is not None


def test_a_dispute_that_was_won(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    intent = stripe.state.get("payment_intent", ACCOUNT, shop.row(bought, "stripePaymentIntentId"), False)
    stripe.state.get("charge", ACCOUNT, intent["latest_charge"], False)["disputed"] = True
    dispute = stripe.state.add("dispute", ACCOUNT, payment_intent=intent["id"], livemode=False, status="under_review")
    assert refused(shop.refund(bought, "--full")) == (5, "charge-disputed")
    dispute["status"] = "won"
    assert shop.refund(bought, "--full").code == 0


def test_one_id_in_both_tables(shop: Shop) -> None:
    id_ = shop.buy()
    shop.purchase(id=id_, tenancy=OTHER)
    result = shop.run("refunds", "preview", id_, "--json")
    assert refused(result) == (2, "usage")
    assert str(OTHER) in result.json["error"]["message"]
    subscribed = shop.subscribe()
    shop.purchase(id=subscribed)
    result = shop.run("refunds", "preview", subscribed, "--json")
    assert "can't be told apart" in result.json["error"]["hint"]


def test_closed_wrongly_is_repaired_by_resume(shop: Shop) -> None:
    refund = shop.refund(shop.buy(), "--full").json["refund"]
    shop.one("UPDATE stackctl.refund SET status = 'failed', stripe_refund = NULL RETURNING id")
    assert shop.run("refunds", "list", "--reconcile").code == 1
    assert shop.resume(refund["id"]).json["refund"] == refund
    assert shop.run("refunds", "list", "--reconcile").code == 0


def test_a_row_that_is_locked_does_not_hold_up_the_others(shop: Shop, stripe: Running) -> None:
    stripe.state.next_statuses.extend(["pending", "pending"])
    one, other = shop.buy(), shop.buy()
    assert [shop.refund(id_, "--full").code for id_ in (one, other)] == [6, 6]
    for each in made(stripe):
        each["status"] = "succeeded"
    with shop.connect() as conn, conn.transaction():
        conn.execute('SELECT 1 FROM "OneTimePurchase" WHERE id = %s FOR UPDATE', (one,))
        assert len(shop.run("refunds", "resume", "--all", "--dry-run", "--json").json["refunds"]) == 2
        hasty = "from stackctl.payments import purchases; purchases.LOCK_TIMEOUT = '300ms'"
        resumed = forked.run(["refunds", "resume", "--all", "--json"], cwd=shop.directory, before=hasty)
    result = json.loads(resumed.stdout)
    assert (resumed.returncode, result["settled"], result["left"]) == (6, 1, 1)
    assert shop.row(other, "refundedAt") is not None
    assert shop.resume().code == 0
    assert shop.run("refunds", "resume", "--all", "--dry-run").stdout == "0 refunds to settle; Stripe was not asked\n"


def test_no_key_is_said_once(shop: Shop, stripe: Running) -> None:
    stripe.state.next_statuses.append("pending")
    assert shop.refund(shop.buy(), "--full").code == 6
    del shop.settings["payments"]
    assert refused(shop.resume()) == (3, "no-stripe-key")


@pytest.mark.parametrize("odd", ["a\udcff", "\x1b[31mred", "line\nline"])
def test_texts_that_are_none(shop: Shop, odd: str) -> None:
    bought = shop.buy()
    for flag in ("--note", "--request-id", "--invoice"):
        assert refused(shop.refund(bought, "--full", flag, odd)) == (2, "usage")
    assert shop.run("refunds", "list", "--customer", odd, "--json").code == 2
    assert shop.run("payments", "products", "--customer", odd, "--json").code == 2
    assert shop.run("refunds", "list", "--limit", "9" * 20).code == 2


def test_a_name_can_not_steer_the_terminal(shop: Shop) -> None:
    bought = shop.buy(product={"displayName": "\x1b[2Jgone"}, customerId="\x1b]0;title\x07")
    shown = shop.run("refunds", "preview", bought)
    asked = shop.run("refunds", "create", bought, "--full")
    assert "\x1b" not in shown.stdout + asked.stderr
    assert r"\x1b[2Jgone" in shown.stdout


def test_a_payment_intent_that_is_empty(shop: Shop, stripe: Running) -> None:
    bought = shop.purchase(stripePaymentIntentId="")
    assert refused(shop.refund(bought, "--full")) == (5, "purchase-not-found")
    assert not stripe.calls()


def test_an_account_that_was_disconnected_does_not_hide_the_others(shop: Shop, stripe: Running) -> None:
    assert shop.refund(shop.buy(), "--full").code == 0
    stripe.state.add("account", id="acct_new")
    shop.one('UPDATE "Project" SET "stripeAccountId" = %s RETURNING id', "acct_new")
    assert shop.run("refunds", "list", "--reconcile", "--json").json["compared"] == 1
    shop.one("UPDATE stackctl.refund SET stripe_account = %s RETURNING id", "acct_old")
    result = shop.run("refunds", "list", "--reconcile", "--json")
    assert (result.code, result.json["ok"], result.json["not_compared"]) == (4, False, ["acct_old"])
    assert "acct_old could not be compared" in result.stderr


def test_money_that_came_back_of_one_refund_while_another_has_replaced_it(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(2000)
    first = shop.refund(bought, "--amount", "20").json["refund"]
    made(stripe)[0]["status"] = "failed"
    assert shop.refund(bought, "--amount", "20", "--again").code == 0
    assert shop.resume(first["id"]).code == 5
    assert shop.row(bought, "refundedAt") is not None

    subscribed = shop.subscribe(renewals=1)
    assert shop.refund(subscribed, "--full").code == 0
    renewal = shop.refund(subscribed, "--amount", "1", "--invoice", f"in_1_{subscribed}").json["refund"]
    made(stripe)[-1]["status"] = "failed"
    assert shop.resume(renewal["id"]).code == 5
    assert shop.row(subscribed, "refundedAt") is not None


@pytest.mark.parametrize("key", ["sk_live_abc\nTAILSECRET", "sk_test_é", " sk_test_fake"])
def test_a_key_that_can_be_none(shop: Shop, key: str) -> None:
    shop.settings["payments"]["stripe_api_key"] = key
    result = shop.run("refunds", "preview", shop.buy(), "--json", "--debug")
    assert refused(result) == (3, "bad-stripe-key")
    assert "TAILSECRET" not in result.stdout + result.stderr


def test_several_items_do_not_end_together_for_the_sake_of_one(shop: Shop, stripe: Running) -> None:
    id_ = shop.subscribe(3000, 3)
    found = stripe.state.get("subscription", ACCOUNT, f"sub_{id_}", False)
    found["items"]["data"].append({"id": "si_2", "quantity": 1})
    assert refused(shop.refund(id_, "--full")) == (5, "subscription-has-several-items")
    assert (made(stripe), found["cancel_at_period_end"]) == ([], False)
    found["status"] = "canceled"
    assert shop.refund(id_, "--full").code == 0, "nothing is left to end"


def test_an_inquiry_is_refunded_with_a_word(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    intent = stripe.state.get("payment_intent", ACCOUNT, shop.row(bought, "stripePaymentIntentId"), False)
    stripe.state.get("charge", ACCOUNT, intent["latest_charge"], False)["disputed"] = True
    dispute = stripe.state.add("dispute", ACCOUNT, payment_intent=intent["id"], livemode=False,
                               status="warning_under_review")  # fmt: skip
    preview = shop.run("refunds", "preview", bought, "--json")
    assert (preview.json["refundable"], preview.json["inquiry"]) == (True, True)
    asked = shop.refund(bought, "--amount", "5")
    assert (asked.code, "an inquiry, no dispute yet" in asked.stderr.replace("\n", " ")) == (0, True)
    dispute["status"] = "needs_response"
    assert refused(shop.refund(bought, "--full")) == (5, "charge-disputed")


def test_what_a_pending_refund_waits_for(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    sent = {"email_sent": {"email_sent_at": 1_790_000_000, "email_sent_to": "ada@example.com"}}
    stripe.state.next_statuses.append(
        {"status": "requires_action", "instructions_email": "ada@example.com", "pending_reason": "insufficient_funds",
         "next_action": {"type": "display_details", "display_details": sent | {"expires_at": 1_800_000_000}}}
    )  # fmt: skip
    result = shop.refund(bought, "--full")
    refund = result.json["refund"]
    assert (result.code, refund["status"], refund["pending_reason"]) == (6, "pending", "insufficient_funds")
    assert (refund["next_action"]["type"], refund["instructions_email"]) == ("display_details", "ada@example.com")
    for text in (
        shop.run("refunds", "show", refund["id"]).stdout,
        shop.run("refunds", "resume", refund["id"]).stdout,
    ):
        assert "balance does not cover it" in text
        assert "Stripe has written to ada@example.com on 2026-09-21; it expires on 2027-01-15" in text
    made(stripe)[0]["status"] = "succeeded"
    settled = shop.resume(refund["id"])
    assert (settled.code, settled.json["refund"]["pending_reason"]) == (0, None)


def test_what_is_read_anyhow_is_written_down(shop: Shop, stripe: Running) -> None:
    """By `preview` and `create`; a dry run writes nothing."""
    sent, later = shop.buy(1999), shop.buy(1999)
    shop.killed("stackctl.payments.gateway:Gateway.create_refund:after", sent)
    stripe.state.next_statuses.append("pending")
    assert shop.refund(later, "--amount", "5").code == 6
    made(stripe)[1]["status"] = "failed"
    posts = len(stripe.calls("POST"))
    assert refused(shop.refund(sent, "--full", "--dry-run")) == (5, "refund-under-way")
    assert shop.one("SELECT count(*) FROM stackctl.refund WHERE status = 'submitted'") == 1
    preview = shop.run("refunds", "preview", sent, "--json")
    assert (preview.json["refunds"][0]["status"], preview.json["refusal"]["code"]) == ("succeeded", "already-refunded")
    assert "Stripe says so" in preview.stderr.replace("\n", " ")
    assert shop.row(sent, "refundedAt") is not None
    assert len(stripe.calls("POST")) == posts
    full = shop.refund(later, "--full").json["refund"]["amount_usd"]
    assert (full, shop.one("SELECT count(*) FROM stackctl.refund WHERE status = 'failed'")) == ("19.99", 1)
    shop.agree()


def test_a_subscription_that_would_bill_on_is_known_before_the_money_goes(shop: Shop, stripe: Running) -> None:
    """Whatever Stripe refuses for good, or undoes later."""
    scheduled, waiting, metered = (shop.subscribe(3000, 3) for _ in range(3))
    shop.schedule(scheduled)
    stripe.state.get("subscription", ACCOUNT, f"sub_{waiting}", False)["pending_update"] = {"expires_at": 1}
    shop.item(metered)["price"] = {"recurring": {"usage_type": "metered"}}
    part = ("--amount", "5", "--quantity", "1")
    for id_, asked, code in (
        (scheduled, part, "subscription-scheduled"), (scheduled, ("--full",), "subscription-scheduled"),
        (waiting, part, "subscription-update-pending"), (metered, part, "subscription-metered"),
    ):  # fmt: skip
        assert refused(shop.refund(id_, *asked)) == (5, code)
    assert (made(stripe), stripe.calls("POST")) == ([], [])
    assert shop.refund(scheduled, "--amount", "5").code == 0, "the money alone"
    assert shop.refund(metered, "--full").code == 0


def test_a_schedule_is_released_for_the_refund(shop: Shop, stripe: Running) -> None:
    id_ = shop.subscribe(3000, 3)
    schedule = shop.schedule(id_)
    wanted = ("--full", "--release-schedule")
    dry = shop.run("refunds", "create", id_, *wanted, "--dry-run", "--json")
    release = f"/v1/subscription_schedules/{schedule}/release"
    assert [one["path"] for one in dry.json["requests"]] == [release, "/v1/refunds", f"/v1/subscriptions/sub_{id_}"]
    asked = shop.run("refunds", "create", id_, *wanted)
    assert (asked.code, f"end schedule {schedule}" in asked.stderr) == (5, True)
    shop.killed("stackctl.payments.gateway:Gateway.release_schedule:after", id_, *wanted)
    assert made(stripe) == []
    assert shop.refund(id_, *wanted).code == 0
    assert shop.row(id_, "cancelAtPeriodEnd") is True
    assert [call.path for call in stripe.calls("POST")] == [release, "/v1/refunds", f"/v1/subscriptions/sub_{id_}"]
    shop.agree()


def test_a_schedule_that_came_after_the_plan(shop: Shop, stripe: Running) -> None:
    """What a killed process has planned is not sent, as long as the schedule is there."""
    id_, asked = shop.subscribe(3000, 3), ("--amount", "5", "--quantity", "1", "--request-id", "r")
    shop.killed("stackctl.payments.refunds.execute:plan_refund:after", id_, *asked)
    schedule = shop.schedule(id_)
    left = shop.resume()
    assert (left.code, "managed by schedule" in left.stderr, shop.status()) == (6, True, "planned")
    assert refused(shop.refund(id_, *asked)) == (5, "subscription-scheduled")
    assert (made(stripe), shop.status()) == ([], "canceled")
    opened(stripe).release_schedule(schedule)
    assert (shop.resume().code, made(stripe)) == (0, []), "it was refused, and is not sent behind anybody's back"
    assert shop.refund(id_, *asked).code == 0
    assert (shop.status(), shop.item(id_)["quantity"]) == ("succeeded", 2)
    shop.agree()


def test_refunded_is_what_has_arrived(shop: Shop, stripe: Running) -> None:
    """All is given back, and a part of it still on its way."""
    bought = shop.buy(1999)
    stripe.state.next_statuses.append("pending")
    assert shop.refund(bought, "--amount", "5").code == 6
    assert shop.refund(bought, "--full").code == 0
    assert shop.row(bought, "refundedAt") is None
    made(stripe)[0]["status"] = "succeeded"
    assert shop.resume().code == 0
    assert shop.row(bought, "refundedAt") is not None
    shop.agree()


def test_a_schedule_that_came_after_the_money(shop: Shop) -> None:
    """Nothing but giving up ends that, and it says what is left to be done."""
    id_ = shop.subscribe(3000, 3)
    shop.killed("stackctl.payments.refunds.execute:revoke_quantity:before", id_, "--full")
    shop.schedule(id_)
    left = shop.resume()
    assert (left.code, "managed by schedule" in left.stderr) == (6, True)
    refund = str(shop.one("SELECT id FROM stackctl.refund"))
    given_up = shop.run("refunds", "resume", refund, "--give-up", "--yes")
    assert (given_up.code, "keeps its quantity and goes on" in given_up.stdout) == (0, True)
    assert shop.run("refunds", "resume", refund, "--give-up", "--yes").code == 5, "there is nothing more to give up"


def test_of_an_account_that_is_disconnected(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    shop.killed("stackctl.payments.gateway:Gateway.create_refund:after", bought, "--full")
    refund = str(shop.one("UPDATE stackctl.refund SET stripe_account = 'acct_gone' RETURNING id"))
    assert refused(shop.resume(refund)) == (4, "account-not-connected")
    given_up = shop.run("refunds", "resume", refund, "--give-up", "--yes", "--json")
    assert (given_up.code, given_up.json["refund"]["status"]) == (0, "canceled")
    assert "not connected any more" in given_up.json["undone"][0]
    shop.one("UPDATE stackctl.refund SET stripe_account = %s RETURNING id", ACCOUNT)
    assert refused(shop.refund(bought, "--full")) == (5, "already-refunded"), "Stripe has it"
    assert shop.resume(refund).json["refund"]["status"] == "succeeded"
    shop.agree()


def test_a_purchase_stays_revoked_when_its_money_came_back(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999, 2)
    refund = shop.refund(bought, "--full").json["refund"]["id"]
    made(stripe)[0]["status"] = "failed"
    resumed = shop.run("refunds", "resume", refund)
    assert (resumed.code, "2 stay revoked" in resumed.stdout) == (5, True)
    assert "2 stay revoked" in shop.run("refunds", "show", refund).stdout
    again = shop.refund(bought, "--full")
    assert (again.code, again.json["refund"]["entries"][0]["quantity"]) == (0, 0)
    assert shop.run("refunds", "show", refund, "--json").json["refund"]["stays_revoked"] == 2

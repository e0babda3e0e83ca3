"""stackctl refunds: what is asked, what is refused and why, and what the purchase's row says afterwards."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import pytest

from stackctl.cli.arguments import name_operator
from tests.backend import MINE, OTHER
from tests.shop import ACCOUNT, made, refused

if TYPE_CHECKING:
    from tests.shop import Shop
    from tests.stripe_fake import Running


@pytest.mark.quick
def test_a_full_refund(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999, 2)
    result = shop.refund(
        bought, "--full", "--reason", "requested_by_customer", "--note", "rang up", "--request-id", "r"
    )
    assert result.code == 0, result
    refund = result.json["refund"]
    (own,) = made(stripe)
    entries = [{"entry_index": 0, "quantity": 2, "amount_usd": "19.99", "amount": "19.99", "currency": "usd"}]
    assert (refund["status"], refund["amount_usd"], refund["entries"]) == ("succeeded", "19.99", entries)
    assert (refund["purchase_type"], refund["purchase_id"]) == ("one-time-purchase", str(bought))
    assert (refund["stripe_refund_id"], refund["failure"], refund["tenancy"]) == (own["id"], None, str(MINE))
    assert (own["amount"], own["reason"]) == (1999, "requested_by_customer")
    assert own["metadata"] == {"stackctl_refund_id": refund["id"], "stackctl_purchase_id": str(bought),
                               "stackctl_by": name_operator()}  # fmt: skip
    assert all(shop.row(bought, "refundedAt", "revokedAt"))
    assert shop.row(bought, "quantity") == 2
    assert shop.run("refunds", "show", refund["id"], "--json").json == result.json
    calls = [(call.method, call.path) for call in stripe.calls()]
    assert [method for method, _ in calls] == ["GET", "GET", "POST"], "three calls, all told"
    assert stripe.calls("POST")[0].account == ACCOUNT


def test_partial_refunds_until_nothing_remains(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    assert shop.refund(bought, "--amount", "10").code == 0
    assert shop.row(bought, "refundedAt", "revokedAt") == (None, None)
    over = shop.refund(bought, "--amount", "10")
    assert refused(over) == (5, "amount-over-remainder")
    assert over.json["error"]["details"] == {"remaining_usd": "9.99", "amount_usd": "10.00", "remaining": "9.99",
                                              "amount": "10.00", "currency": "usd"}  # fmt: skip
    assert shop.refund(bought, "--entry", "0:1:9.99").code == 0
    assert all(shop.row(bought, "refundedAt", "revokedAt"))
    assert refused(shop.refund(bought, "--amount", "0.01")) == (5, "already-refunded")
    assert [one["amount"] for one in made(stripe)] == [1000, 999]


def test_more_than_was_charged_by_a_cent_though_less_than_the_list_price(shop: Shop) -> None:
    bought = shop.buy(1999)
    assert refused(shop.refund(bought, "--amount", "20.00")) == (5, "amount-over-remainder")


def test_whole_dollars_are_not_cents(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(600_000)
    assert shop.refund(bought, "--amount", "5000").code == 0
    assert made(stripe)[0]["amount"] == 500_000


def test_an_amount_that_is_none(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    for argument in ("--amount=12.3456", "--amount=101%", "--amount=", "--entry=0:0:-1"):
        result = shop.refund(bought, argument)
        assert refused(result) == (2, "schema-error")
        assert "19.99" in result.json["error"]["hint"]
    assert not stripe.calls()
    assert refused(shop.refund(bought, "--amount=12.345")) == (2, "schema-error")  # of dollars
    assert not stripe.calls("POST")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--entry", "1:1:5"), (2, "schema-error")),  # the charge
        (("--entry", "2:1:5"), (2, "schema-error")),
        (("--entry", "0:1:1", "--entry", "0:1:1"), (2, "schema-error")),
        (("--entry", "0:1.5:1"), (2, "schema-error")),
        (("--entry", "0:-1:1"), (2, "schema-error")),
        (("--entry", "5"), (2, "schema-error")),
        (("--amount", "0"), (2, "schema-error")),
        (("--entry", "0:1:0.00"), (2, "schema-error")),
        (("--entry", "0:3:5"), (5, "quantity-over-remainder")),
        (("--amount", "5", "--quantity", "3"), (5, "quantity-over-remainder")),
        ((), (2, "usage")),
        (("--full", "--amount", "5"), (2, "usage")),
        (("--full", "--revoke", "3"), (5, "quantity-over-remainder")),
        (("--full", "--end", "now"), (2, "usage")),
        (("--amount", "5", "--invoice", "in_1"), (2, "usage")),
        (("--amount", "5", "--note", " "), (2, "usage")),
    ],
)
def test_what_can_not_be_asked(shop: Shop, stripe: Running, arguments: tuple[str, ...], code: tuple[int, str]) -> None:
    bought = shop.buy(1999, 2)
    assert refused(shop.refund(bought, *arguments)) == code
    assert not stripe.calls("POST")
    assert shop.one("SELECT count(*) FROM stackctl.refund") == 0


def test_purchases_that_can_not_be_refunded(shop: Shop, stripe: Running) -> None:
    test_mode = shop.purchase(creationSource="TEST_MODE")
    granted = shop.purchase(creationSource="API_GRANT")
    unknown = shop.buy(500, intent={"currency": "xts"})
    unpaid = shop.buy(500, intent={"amount_received": 0, "status": "requires_payment_method"})
    disputed = shop.buy(500)
    intent = shop.row(disputed, "stripePaymentIntentId")
    charge = stripe.state.get("payment_intent", ACCOUNT, intent, False)["latest_charge"]
    stripe.state.get("charge", ACCOUNT, charge, False)["disputed"] = True
    codes = {
        test_mode: "test-mode-purchase-non-refundable",
        granted: "purchase-not-found",
        unknown: "currency-not-supported",
        unpaid: "not-charged",
        disputed: "charge-disputed",
    }
    for id_, code in codes.items():
        assert refused(shop.refund(id_, "--full")) == (5, code)
        preview = shop.run("refunds", "preview", id_, "--json")
        assert (preview.code, preview.json["refundable"], preview.json["refusal"]["code"]) == (0, False, code)
    assert "paid in XTS" in shop.run("refunds", "preview", unknown).stdout
    assert refused(shop.refund(uuid.uuid4(), "--full")) == (2, "purchase-not-found")
    assert refused(shop.refund("pi_1", "--full")) == (2, "purchase-not-found")  # type: ignore[arg-type]
    assert not stripe.calls("POST")


def test_a_refund_made_in_the_dashboard_counts(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    intent = shop.row(bought, "stripePaymentIntentId")
    stripe.state.refund(ACCOUNT, {"payment_intent": intent, "amount": 1500}, False)
    assert refused(shop.refund(bought, "--amount", "5.00")) == (5, "amount-over-remainder")
    assert shop.refund(bought, "--full").json["refund"]["amount_usd"] == "4.99"
    assert shop.row(bought, "refundedAt") is not None


def test_the_purchase_of_another_tenancy_is_found_by_its_id(shop: Shop) -> None:
    bought = shop.buy(tenancy=OTHER)
    assert refused(shop.refund(bought, "--full", "--tenancy", str(MINE))) == (2, "purchase-not-found")
    assert shop.refund(bought, "--full").json["refund"]["tenancy"] == str(OTHER)


def test_nobody_is_asked_off_a_terminal(shop: Shop, stripe: Running) -> None:
    bought = shop.buy()
    result = shop.run("refunds", "create", bought, "--full", "--json")
    assert refused(result) == (5, "confirmation-required")
    assert "19.99 USD" in result.stderr
    assert not stripe.calls("POST")


def test_a_dry_run_shows_the_request_and_sends_nothing(shop: Shop, stripe: Running) -> None:
    subscribed = shop.subscribe(3000, 3)
    arguments = ("refunds", "create", subscribed, "--amount", "10", "--quantity", "1", "--dry-run")
    first, second = shop.run(*arguments, "--json").json["requests"]
    assert first["params"]["amount"] == 1000
    assert first["headers"]["Stripe-Account"] == ACCOUNT
    assert second["params"] == {"items": [{"id": "<its item>", "quantity": 2}], "proration_behavior": "none"}
    text = shop.run(*arguments).stdout
    assert text.startswith("POST /v1/refunds\nStripe-Account: acct_shop\n")
    assert text.endswith("nothing was sent\n")
    assert not stripe.calls("POST")
    assert shop.one("SELECT count(*) FROM stackctl.refund") == 0


# -- the same again


def test_the_same_request_is_one_refund(shop: Shop, stripe: Running) -> None:
    bought = shop.buy()
    first = shop.refund(bought, "--amount", "5", "--request-id", "ticket-1")
    second = shop.refund(bought, "--amount", "5", "--request-id", "ticket-1")
    assert second.code == 0
    assert first.json == second.json
    assert refused(shop.refund(bought, "--amount", "6", "--request-id", "ticket-1")) == (5, "request-id-reused")
    assert refused(shop.refund(shop.buy(), "--amount", "5", "--request-id", "ticket-1")) == (5, "request-id-reused")
    assert shop.refund(bought, "--amount", "5", "--request-id", "ticket-2").code == 0
    assert len(made(stripe)) == 2


def test_the_same_moments_later_is_a_mistake(shop: Shop, stripe: Running) -> None:
    bought = shop.buy()
    assert shop.refund(bought, "--amount", "5").code == 0
    assert refused(shop.refund(bought, "--amount", "5")) == (5, "refunded-moments-ago")
    assert shop.refund(bought, "--amount", "5", "--again").code == 0
    shop.one("UPDATE stackctl.refund SET submitted_at = now() - interval '11 minutes' RETURNING id")
    assert shop.refund(bought, "--amount", "5").code == 0
    assert [one["amount"] for one in made(stripe)] == [500, 500, 500]


# -- subscriptions


def subscription(stripe: Running, id_: uuid.UUID) -> tuple[int, bool]:
    found = stripe.state.get("subscription", ACCOUNT, f"sub_{id_}", False)
    return found["items"]["data"][0]["quantity"], found["cancel_at_period_end"]


def test_a_subscription_loses_what_is_revoked(shop: Shop, stripe: Running) -> None:
    id_ = shop.subscribe(3000, 3)
    result = shop.refund(id_, "--amount", "10", "--quantity", "1")
    assert result.code == 0, result
    assert result.json["refund"]["purchase_type"] == "subscription"
    assert subscription(stripe, id_) == (2, False)
    assert stripe.calls("POST", "/v1/subscriptions")[0].params["proration_behavior"] == "none"
    assert shop.row(id_, "quantity", "cancelAtPeriodEnd", "refundedAt") == (2, False, None)
    preview = shop.run("refunds", "preview", id_, "--json").json
    assert [preview["entries"][0][key] for key in ("quantity", "quantity_left")] == [3, 2]
    assert shop.refund(id_, "--full").code == 0
    assert subscription(stripe, id_) == (2, True)
    assert shop.row(id_, "quantity", "cancelAtPeriodEnd") == (2, True)
    assert shop.row(id_, "refundedAt") is not None


def test_money_only_leaves_a_subscription_alone(shop: Shop, stripe: Running) -> None:
    id_ = shop.subscribe(3000, 3)
    assert shop.refund(id_, "--amount", "10").code == 0
    assert [call.path for call in stripe.calls("POST")] == ["/v1/refunds"]
    assert len(stripe.calls()) == 3


def test_a_cancellation_is_never_taken_back(shop: Shop, stripe: Running) -> None:
    id_ = shop.subscribe(3000, 3, cancelAtPeriodEnd=True)
    stripe.state.get("subscription", ACCOUNT, f"sub_{id_}", False)["cancel_at_period_end"] = True
    assert shop.refund(id_, "--amount", "10", "--quantity", "1").code == 0
    assert subscription(stripe, id_) == (2, True)
    assert shop.row(id_, "cancelAtPeriodEnd") is True


def test_a_renewal_is_refunded_by_its_invoice(shop: Shop, stripe: Running) -> None:
    id_ = shop.subscribe(3000, 1, renewals=2)
    assert shop.refund(id_, "--full").code == 0
    assert refused(shop.refund(id_, "--amount", "1")) == (5, "already-refunded")
    renewal = shop.refund(id_, "--amount", "30", "--invoice", f"in_2_{id_}")
    assert (renewal.code, renewal.json["refund"]["invoice"]) == (0, f"in_2_{id_}")
    assert refused(shop.refund(id_, "--amount", "1", "--invoice", "in_other")) == (2, "invoice-not-found")
    assert [one["amount"] for one in made(stripe)] == [3000, 3000]


def test_which_payment_is_meant(shop: Shop) -> None:
    """The question names it, and newer ones; the advice refunds it and no other; its refunds are its own."""
    id_ = shop.subscribe(3000, 1, renewals=2)
    shop.one("""UPDATE "SubscriptionInvoice" SET "createdAt" = now() + split_part("stripeInvoiceId", '_', 2)::int *
             interval '1 month', "amountTotal" = 3000 RETURNING id""")
    of_first = shop.refund(id_, "--amount", "1").json["refund"]["id"]
    asked = shop.run("refunds", "create", id_, "--amount", "5", "--invoice", f"in_1_{id_}").stderr
    assert f"(invoice in_1_{id_}; 1 newer one was paid since)?" in " ".join(asked.split())
    assert "who paid 30.00 USD on 20" in asked
    shown = shop.run("refunds", "preview", id_, "--invoice", f"in_1_{id_}", "--tenancy", str(MINE))
    advice = f"stackctl refunds create {id_} --invoice in_1_{id_} --tenancy {MINE} --full"
    assert advice in shown.stdout
    assert "other payments of it have 1 refund" in shown.stdout
    assert [line.split("\t")[-1] for line in shown.stdout.splitlines() if line.startswith("in_")] == [
        "", "this one", "the first"
    ]  # fmt: skip
    renewal = shop.run("refunds", "preview", id_, "--invoice", f"in_1_{id_}", "--json").json
    assert (renewal["refunds"], [one["id"] for one in renewal["other_refunds"]]) == ([], [of_first])
    assert [(one["id"], one["amount"], one["shown"]) for one in renewal["invoices"]] == [
        (f"in_{number}_{id_}", "30.00", number == 1) for number in (2, 1, 0)
    ]  # fmt: skip


def test_an_invoice_of_another_subscription(shop: Shop, stripe: Running) -> None:
    """Of the same tenancy, and older."""
    other, id_ = shop.subscribe(1000, 1), shop.subscribe(3000, 1)
    assert refused(shop.refund(id_, "--amount", "1", "--invoice", f"in_0_{other}")) == (2, "invoice-not-found")
    assert shop.refund(id_, "--full").json["refund"]["invoice"] == f"in_0_{id_}"
    assert [one["amount"] for one in made(stripe)] == [3000]


def test_a_renewal_refunded_does_not_mark_the_subscription(shop: Shop) -> None:
    id_ = shop.subscribe(3000, 2, renewals=1)
    assert shop.refund(id_, "--amount", "30", "--invoice", f"in_1_{id_}").code == 0
    assert shop.row(id_, "refundedAt") is None


def test_an_invoice_paid_in_parts(shop: Shop) -> None:
    id_ = shop.subscribe(3000)
    shop.pay(f"in_0_{id_}", 500)
    assert refused(shop.refund(id_, "--full")) == (5, "invoice-paid-in-parts")


# -- the ledger


def test_the_ledger_is_listed_and_held_against_stripe(shop: Shop, stripe: Running) -> None:
    first, second = shop.buy(), shop.buy(customerId="u2")
    one = shop.refund(first, "--amount", "5").json["refund"]
    two = shop.refund(second, "--amount", "6").json["refund"]

    def listed(*arguments: str) -> list[str]:
        return [each["id"] for each in shop.run("refunds", "list", *arguments, "--json").json["refunds"]]

    assert listed() == [two["id"], one["id"]]
    assert listed("--customer", "u2") == [two["id"]]
    assert listed("--status", "failed") == listed("--until", "1h") == listed("--tenancy", str(OTHER)) == []
    assert listed("--since", "1h", "--limit", "1") == [two["id"]]
    agree = shop.run("refunds", "list", "--reconcile")
    assert (agree.code, agree.stdout) == (0, "ledger and Stripe agree: 2 refunds compared\n")

    stripe.state.get("refund", ACCOUNT, one["stripe_refund_id"], False)["status"] = "failed"
    elsewhere = stripe.state.refund(
        ACCOUNT, {"payment_intent": shop.row(first, "stripePaymentIntentId"), "amount": 1}, False
    )
    lost = stripe.state.refund(
        ACCOUNT, {"payment_intent": shop.row(first, "stripePaymentIntentId"), "amount": 2,
                  "metadata": {"stackctl_refund_id": str(uuid.uuid4())}}, False,
    )  # fmt: skip
    shop.one("UPDATE stackctl.refund SET stripe_refund = 're_gone' WHERE id = %s RETURNING id", two["id"])
    stripe.state.get("refund", ACCOUNT, two["stripe_refund_id"], False)["metadata"] = {}
    differ = shop.run("refunds", "list", "--reconcile", "--json")
    found = {(each["kind"], each["refund"] or each["stripe_refund_id"]) for each in differ.json["differences"]}
    assert differ.code == 1
    assert found == {("status", one["id"]), ("not-in-stripe", two["id"]), ("made-elsewhere", elsewhere["id"]),
                     ("made-elsewhere", two["stripe_refund_id"]), ("not-in-ledger", lost["id"])}  # fmt: skip
    assert shop.run("refunds", "list", "--reconcile", "--since", "1h", "--json").json == differ.json
    other = shop.run("refunds", "list", "--reconcile", "--tenancy", str(OTHER), "--json")
    assert (other.code, other.json["compared"], other.json["differences"]) == (0, 0, [])


def test_what_was_refunded_elsewhere_is_told(shop: Shop, stripe: Running) -> None:
    bought = shop.buy()
    intent = shop.row(bought, "stripePaymentIntentId")
    elsewhere = stripe.state.refund(ACCOUNT, {"payment_intent": intent, "amount": 1}, False)
    told = shop.run("refunds", "list", "--reconcile", "--json")
    assert (told.code, told.json["ok"]) == (0, True)
    assert [each["stripe_refund_id"] for each in told.json["differences"]] == [elsewhere["id"]]
    strict = ("refunds", "list", "--reconcile", "--strict")
    assert shop.run(*strict).code == 1
    answer = ("--acknowledge", elsewhere["id"], "--why", "ada paid it back by hand")
    assert refused(shop.run(*strict, "--acknowledge", "re_no", "--why", "x", "--json")) == (2, "unknown-difference")
    assert refused(shop.run(*strict, "--acknowledge", elsewhere["id"], "--json")) == (2, "usage")
    assert shop.run(*strict, *answer).code == 0
    again = shop.run(*strict, "--json")
    known = again.json["differences"][0]["acknowledged"]
    assert (again.code, known["why"]) == (0, "ada paid it back by hand")
    assert "@" in known["by"]
    assert "acknowledged by" in " ".join(shop.run(*strict).stdout.split())
    elsewhere["amount"] = 2  # it is another difference now
    changed = shop.run(*strict, "--json")
    assert (changed.code, changed.json["differences"][0]["acknowledged"]) == (1, None)


def test_one_refund_made_twice(shop: Shop, stripe: Running) -> None:
    """Somebody copied it with its metadata: twice the money is gone."""
    bought = shop.buy(1999)
    refund = shop.refund(bought, "--amount", "5").json["refund"]
    params = {"payment_intent": refund["payment_intent"], "amount": 500,
              "metadata": {"stackctl_refund_id": refund["id"]}}  # fmt: skip
    copied = stripe.state.refund(ACCOUNT, params, False)
    assert "made refund" in shop.run("refunds", "preview", bought).stderr
    resumed = shop.resume(refund["id"])
    assert (resumed.code, copied["id"] in resumed.stderr) == (0, True)
    differ = shop.run("refunds", "list", "--reconcile", "--json")
    (one,) = differ.json["differences"]
    assert (differ.code, one["kind"], one["refund"]) == (1, "made-twice", refund["id"])
    assert one["stripe_refund_id"] == copied["id"]
    shop.one("UPDATE stackctl.refund SET stripe_refund = 're_gone' RETURNING id")
    differ = shop.run("refunds", "list", "--reconcile", "--since", "1h", "--json")
    kinds = sorted((each["kind"], each["stripe_refund_id"]) for each in differ.json["differences"])
    assert kinds == [("made-twice", refund["stripe_refund_id"]), ("made-twice", copied["id"]),
                     ("not-in-stripe", "re_gone")]  # fmt: skip


def test_amounts_and_times_that_differ(shop: Shop, stripe: Running) -> None:
    one, two = (shop.refund(shop.buy(), "--amount", "5").json["refund"] for _ in range(2))
    stripe.state.get("refund", ACCOUNT, one["stripe_refund_id"], False)["amount"] = 600
    # Stripe's clock is behind, or the ledger's was when it was planned: each is found by the other's ids.
    stripe.state.get("refund", ACCOUNT, two["stripe_refund_id"], False)["created"] -= 3000
    before = len(stripe.calls())
    differ = shop.run("refunds", "list", "--reconcile", "--since", "40m", "--json")
    assert [(each["kind"], each["refund"]) for each in differ.json["differences"]] == [("amount", one["id"])]
    assert len(stripe.calls()) - before == 2, "one more list for all that the first did not have"
    stripe.state.get("refund", ACCOUNT, one["stripe_refund_id"], False)["amount"] = 500
    stripe.state.get("refund", ACCOUNT, one["stripe_refund_id"], False)["currency"] = "eur"
    shop.one("UPDATE stackctl.refund SET created_at = created_at - interval '1 hour' WHERE id = %s RETURNING id",
             one["id"])  # fmt: skip
    differ = shop.run("refunds", "list", "--reconcile", "--since", "40m", "--json")
    assert [each["message"] for each in differ.json["differences"]] == [
        "the ledger says 5.00 USD, Stripe says 5.00 EUR"
    ]


def test_a_pending_refund_holds_its_money_until_it_failed(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    stripe.state.next_statuses.extend(["pending", "requires_action"])
    result = shop.refund(bought, "--amount", "15")
    assert (result.code, result.json["refund"]["status"]) == (6, "pending")
    assert refused(shop.refund(bought, "--amount", "5")) == (5, "amount-over-remainder")
    assert shop.refund(bought, "--full").json["refund"]["status"] == "pending"
    assert refused(shop.refund(bought, "--amount", "1")) == (5, "refund-under-way")
    assert shop.row(bought, "refundedAt", "revokedAt") == (None, None)
    assert shop.resume().code == 6
    one, two = made(stripe)
    one |= {"status": "failed", "failure_reason": "expired_or_canceled_card"}
    two["status"] = "succeeded"
    settled = shop.resume()
    assert [settled.code, *(settled.json[key] for key in ("settled", "left", "failed"))] == [5, 2, 0, 1]
    assert "not refunded: expired_or_canceled_card" in settled.stderr
    failed = shop.run("refunds", "list", "--status", "failed", "--json").json["refunds"]
    assert [each["failure"] for each in failed] == ["expired_or_canceled_card"]
    assert shop.row(bought, "refundedAt") is None
    assert shop.refund(bought, "--full").json["refund"]["amount_usd"] == "15.00"
    assert shop.row(bought, "refundedAt") is not None


def test_a_refund_that_failed_at_once(shop: Shop, stripe: Running) -> None:
    bought = shop.buy()
    stripe.state.next_statuses.append("failed")
    result = shop.refund(bought, "--full")
    assert (result.code, result.json["refund"]["status"]) == (5, "failed")
    assert shop.row(bought, "refundedAt") is None
    assert shop.refund(bought, "--full").code == 0


# -- keys, and a Stripe that does not do as it should


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("sk_test_wrong", (4, "stripe-key-refused")),
        ("sk_test_revoked", (4, "stripe-key-refused")),
        ("sk_live_fake", (5, "stripe-not-found")),
        ("rk_test_restricted", (4, "stripe-forbidden")),
    ],
)
def test_keys_that_are_of_no_use(shop: Shop, stripe: Running, key: str, code: tuple[int, str]) -> None:
    stripe.fake.keys |= {"sk_test_revoked": "revoked", "rk_test_restricted": "restricted"}
    bought = shop.buy()
    result = shop.refund(bought, "--full", "--stripe-api-key", key)
    assert refused(result) == code
    assert key not in result.stdout + result.stderr
    assert not made(stripe)
    assert shop.one("SELECT count(*) FROM stackctl.refund WHERE status NOT IN ('failed', 'canceled')") == 0
    assert shop.refund(bought, "--full").code == 0


def test_no_account_and_no_key(shop: Shop) -> None:
    bought = shop.buy()
    shop.one('UPDATE "Project" SET "stripeAccountId" = NULL RETURNING id')
    assert refused(shop.refund(bought, "--full")) == (5, "no-account")
    del shop.settings["payments"]
    shop.one('UPDATE "Project" SET "stripeAccountId" = %s RETURNING id', ACCOUNT)
    assert refused(shop.refund(bought, "--full")) == (3, "no-stripe-key")
    assert shop.run("refunds", "preview", shop.purchase(creationSource="TEST_MODE")).code == 0, "needs no key"


def test_an_account_that_stripe_does_not_know(shop: Shop) -> None:
    bought = shop.buy()
    shop.one('UPDATE "Project" SET "stripeAccountId" = %s RETURNING id', "acct_other")
    assert refused(shop.refund(bought, "--full"))[0] == 4


def test_stripe_is_down(shop: Shop) -> None:
    bought = shop.buy()
    shop.settings["payments"]["stripe_api_base"] = "http://127.0.0.1:9"
    result = shop.refund(bought, "--full")
    assert refused(result) == (4, "stripe-unreachable")
    assert "support@" not in result.stderr
    assert refused(shop.run("refunds", "preview", bought, "--json")) == (4, "stripe-unreachable")


def test_an_address_that_is_not_stripes(shop: Shop, stripe: Running) -> None:
    bought = shop.buy()
    for _ in range(3):
        stripe.fault("html-502", method="GET")
    answered = shop.refund(bought, "--full")
    assert refused(answered) == (4, "stripe-failed")
    assert "payments.stripe_api_base" in answered.json["error"]["hint"]
    shop.settings["payments"]["stripe_api_base"] = "ftp://127.0.0.1"
    mistaken = shop.refund(bought, "--full")
    assert refused(mistaken)[0] == 3
    assert "begins with https:// or http://" in mistaken.stderr


def test_what_stripe_refuses_is_found_again(shop: Shop, stripe: Running) -> None:
    """By the refund's id, and by the request's."""
    bought = shop.buy()
    intent = shop.row(bought, "stripePaymentIntentId")
    charge = stripe.state.get("payment_intent", ACCOUNT, intent, False)["latest_charge"]
    point = "stackctl.payments.refunds.execute:plan_refund:after"
    shop.killed(point, bought, "--full", "--request-id", "r7")
    stripe.state.get("charge", ACCOUNT, charge, False)["disputed"] = True
    result = shop.run("refunds", "create", bought, "--full", "--request-id", "r7", "--yes")
    id_ = shop.one("SELECT id::text FROM stackctl.refund")
    assert result.code == 5
    assert f"`stackctl refunds show {id_}` (request r7)" in result.stderr.replace("\n      ", " ")


def test_too_many_requests_refund_nothing(shop: Shop, stripe: Running) -> None:
    bought = shop.buy()
    stripe.fault("429", method="POST")
    assert refused(shop.refund(bought, "--full")) == (4, "stripe-busy")
    assert shop.refund(bought, "--full").code == 0
    assert len(made(stripe)) == 1


def test_what_the_preview_shows(shop: Shop) -> None:
    bought = shop.buy(1999, 2)
    shop.refund(bought, "--amount", "5", "--quantity", "1")
    text = shop.run("refunds", "preview", bought).stdout
    assert "Lifetime" in text
    assert "2 at 24.99 USD" in text
    assert "1 left" in text
    assert "14.99 USD remain" in text
    assert f"stackctl refunds create {bought}" in text


def test_it_speaks_for_people(shop: Shop) -> None:
    bought = shop.buy(1999)
    result = shop.run("refunds", "create", bought, "--full", "--yes")
    assert result.stdout.startswith("refunded 19.99 USD, 1 revoked  (re_")
    id_ = result.stdout.split()[-1]
    shown = shop.run("refunds", "show", id_).stdout
    assert "status    succeeded" in shown
    assert json.loads(shop.run("refunds", "resume", id_, "--json").stdout)["refund"]["status"] == "succeeded"
    idle = shop.run("refunds", "resume", "--all")
    assert (idle.code, idle.stdout, idle.stderr) == (0, "", "")
    assert shop.run("refunds", "show", result.stdout.split("(")[1].split(")")[0]).stdout == shown, "by Stripe's id"
    assert refused(shop.run("refunds", "show", str(bought), "--json")) == (2, "unknown-refund")
    for named, next_step in (("x", "refunds list"), ("re_elsewhere", "refunds preview re_elsewhere")):
        for word in ("show", "resume"):
            unknown = shop.run("refunds", word, named)
            assert unknown.code == 2
            assert next_step in unknown.stderr
    assert refused(shop.run("refunds", "resume", "--json")) == (2, "usage")


@pytest.mark.parametrize("product", ["null", "[]", '"x"', "{}", '{"prices": "include-by-default"}',
                                     '{"prices": {"p": null}}'])  # fmt: skip
def test_a_product_that_is_written_oddly_is_refunded_all_the_same(shop: Shop, product: str) -> None:
    bought = shop.buy(1999)
    shop.one('UPDATE "OneTimePurchase" SET product = %s::jsonb RETURNING id', product)
    assert shop.run("refunds", "preview", bought).code == 0
    assert shop.refund(bought, "--full").code == 0
    assert shop.run("payments", "products", "--customer", "u1", "--tenancy", str(MINE)).code == 0

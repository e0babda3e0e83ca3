"""Several who refund, or settle, the same at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stackctl.core.errors import ServiceError, StateError
from stackctl.payments import gateway, purchases
from stackctl.payments.refunds import balance, execute, ledger
from stackctl.payments.refunds.request import RefundRequest, resolve_entries
from tests.backend import ended, wait_for
from tests.shop import ACCOUNT, made, opened

if TYPE_CHECKING:
    import subprocess
    import uuid

    from tests.backend import Outcome
    from tests.shop import Shop
    from tests.stripe_fake import Running


PATIENT = "from stackctl.payments import purchases; purchases.LOCK_TIMEOUT = '60s'"


def sixteen(shop: Shop, bought: uuid.UUID, *arguments: str, each: str | None = None) -> list[Outcome]:
    """`refunds create`, sixteen times, let go when the last of them waits for the purchase's row."""
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with shop.connect() as holder, holder.transaction():
        holder.execute('SELECT 1 FROM "OneTimePurchase" WHERE id = %s FOR UPDATE', (bought,))
        running: list[subprocess.Popen[str]] = []
        for number in range(16):
            own = (each, str(number)) if each else ()
            command = ("refunds", "create", bought, *arguments, *own, "--yes", "--json")
            running.append(shop.start(*command, before=PATIENT))
        wait_for(lambda: shop.one(blocked) == 16)
        assert shop.status() is None
    return outcomes(running)


def outcomes(processes: list[subprocess.Popen[str]]) -> list[Outcome]:
    return [ended(process) for process in processes]


def test_sixteen_at_once(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    assert sorted(one.code for one in sixteen(shop, bought, "--full")) == [0] + [5] * 15
    assert [one["amount"] for one in made(stripe)] == [1999]
    assert shop.one("SELECT count(*) FROM stackctl.refund") == 1
    shop.agree()


def test_sixteen_parts_at_once_never_sum_to_more_than_was_charged(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    found = sixteen(shop, bought, "--amount", "2.50", each="--request-id")
    assert sorted(one.code for one in found) == [0] * 7 + [5] * 9
    assert [one["amount"] for one in made(stripe)] == [250] * 7
    assert shop.one("SELECT count(*) FROM stackctl.refund") == 7
    shop.agree()


def test_one_request_sixteen_times_at_once(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    found = sixteen(shop, bought, "--amount", "5", "--request-id", "same")
    assert [one.code for one in found] == [0] * 16
    assert len({one.json["refund"]["id"] for one in found}) == shop.one("SELECT count(*) FROM stackctl.refund") == 1
    assert [one["amount"] for one in made(stripe)] == [500]


def test_one_request_for_two_purchases_at_once(shop: Shop, stripe: Running) -> None:
    one, other = shop.buy(), shop.buy()
    both = [shop.create(None, id_, "--full", "--request-id", "same") for id_ in (one, other)]
    found = sorted(one.code for one in outcomes(both))
    assert found == [0, 5]
    assert len(made(stripe)) == 1


def test_resumed_by_several_at_once(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    shop.killed("stackctl.payments.gateway:Gateway.create_refund:before", bought)
    running = [shop.start("refunds", "resume", "--all", "--json") for _ in range(8)]
    codes = {one.code for one in outcomes(running)}
    assert 0 in codes
    assert codes <= {0, 6}
    # By them, not by the next who looks.
    assert (shop.status(), [one["amount"] for one in made(stripe)]) == ("succeeded", [1999])
    assert shop.resume().code == 0
    assert len(made(stripe)) == 1
    shop.agree()


def test_the_later_of_two_who_look_does_not_take_it_back(shop: Shop, stripe: Running) -> None:
    """One has read "pending" and is slow; another has read and recorded "succeeded"."""
    bought = shop.buy(1999)
    stripe.state.next_statuses.append("pending")
    assert shop.refund(bought, "--full").code == 6
    with shop.pipeline().open_session() as conn:
        refund = ledger.find_refunds(conn)[0]
        assert refund.stripe_refund
        ledger.record_status(conn, refund.id, status="succeeded", stripe=refund.stripe_refund, failure=None)
        ledger.record_status(conn, refund.id, status="pending", stripe=refund.stripe_refund, failure=None)
        assert ledger.get_refund(conn, refund.id).status == "succeeded"
        ledger.record_status(conn, refund.id, status="failed", stripe=refund.stripe_refund, failure="lost")
        ledger.record_status(conn, refund.id, status="succeeded", stripe=refund.stripe_refund, failure=None)
        assert ledger.get_refund(conn, refund.id).status == "failed"


def test_closed_wrongly_is_repaired_by_what_stripe_has(shop: Shop) -> None:
    bought = shop.buy(1999)
    shop.killed("stackctl.payments.gateway:Gateway.create_refund:after", bought)
    with shop.pipeline().open_session() as conn:
        refund = ledger.find_refunds(conn)[0]
        ledger.fail_refund(conn, refund.id, "thought so", refund.sends)
        ledger.record_status(conn, refund.id, status="succeeded", stripe="re_1", failure=None)
        assert ledger.get_refund(conn, refund.id).status == "succeeded"


def test_a_purchase_locked_by_the_application(shop: Shop, stripe: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of Stripe while the remainder can't be held."""
    monkeypatch.setattr(purchases, "LOCK_TIMEOUT", "100ms")
    bought = shop.buy(1999)
    wanted = RefundRequest(None)
    with shop.connect() as other, other.transaction():
        other.execute('SELECT 1 FROM "OneTimePurchase" WHERE id = %s FOR UPDATE', (bought,))
        with pytest.raises(StateError) as caught, shop.pipeline().open_session() as conn:
            found = balance.read_balance(
                conn, purchases.find_purchase(conn, bought), None, lambda: (ACCOUNT, opened(stripe))
            )
            execute.plan_refund(conn, found, resolve_entries(wanted, found), wanted)
    assert caught.value.code == "lock-timeout"
    assert shop.status() is None


def test_refused_while_somebody_else_sends_it_again(
    shop: Shop, stripe: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was refused does not say that nothing was refunded, nor free the money."""
    bought = shop.buy(1999)
    with shop.pipeline().open_session() as conn:
        refund, on = shop.planned(conn, bought), opened(stripe)

        def refuse(*_: Any) -> gateway.StripeRefund:
            with shop.connect() as other:
                assert ledger.mark_sent_again(other, refund.id, 60)
            raise ServiceError("too many requests", code="stripe-busy")

        monkeypatch.setattr(on, "create_refund", refuse)
        outcome = execute.execute_refund(conn, on, refund)
    assert (outcome.refund.status, outcome.problem is None) == ("submitted", False)
    assert shop.resume().code == 0
    assert len(made(stripe)) == 1

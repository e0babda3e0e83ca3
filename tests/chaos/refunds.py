"""Drive refunds into each other: `python -m tests.chaos.refunds [--rounds N] [--seed N]`.

A round is one purchase and sixteen `refunds create` of it at once, some of them killed -9 at a named point, with
faults of Stripe strewn over their requests and a `resume` or two in between. Then Stripe behaves again, `resume --all`
settles, whatever was not answered for good is asked once more, and it is counted: what was refunded against what was
charged and what was asked for, the ledger against Stripe, the purchase's columns, every exit code. Some subscriptions
are managed by a schedule, and now and then money comes back in the end. Purchases are paid in several currencies; what
is asked is an amount, a percentage or nothing, with and without an end or a credit note.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackctl.payments.money import format_decimal, parse_amount
from tests.backend import ended
from tests.shop import ACCOUNT
from tests.stripe_fake.faults import KINDS

if TYPE_CHECKING:
    import subprocess
    import uuid

    from tests.backend import Outcome
    from tests.shop import Shop
    from tests.stripe_fake import Running

AT_ONCE = 16
CURRENCIES = ("usd", "usd", "eur", "jpy", "kwd")
KILLED = -9
_PAYMENTS = "stackctl.payments"
Started = tuple["subprocess.Popen[str]", str | None]  # and where it is to die
POINTS = tuple(
    f"{_PAYMENTS}.{point}"
    for point in (
        "gateway:Gateway.list_refunds:after", "refunds.ledger:insert_refund:after", "refunds.execute:plan_refund:after",
        "refunds.ledger:mark_submitted:before", "refunds.ledger:mark_submitted:after",
        "gateway:Gateway.create_refund:before", "gateway:Gateway.create_refund:after",
        "refunds.ledger:record_status:before", "refunds.ledger:record_status:after", "purchases:mark_refunded:before",
        "purchases:mark_refunded:after", "refunds.execute:_record:after",
    )
)  # fmt: skip
REVOKING = tuple(
    f"{_PAYMENTS}.{point}"
    for point in (
        "refunds.quantity:_find_item:after", "gateway:Gateway.set_quantity:before",
        "gateway:Gateway.set_quantity:after", "gateway:Gateway.cancel_now:before", "gateway:Gateway.cancel_now:after",
        "gateway:Gateway.cancel_at_period_end:before", "gateway:Gateway.cancel_at_period_end:after",
        "purchases:lower_quantity:before", "purchases:lower_quantity:after", "refunds.ledger:mark_revoked:after",
    )
)  # fmt: skip
DOCUMENTED = {0, 4, 5, 6, KILLED}
FINAL = {0, 5}  # refunded, or refused
HURRIED = "from stackctl.payments import gateway; gateway.TIMEOUT = 3.0"


class Driver:
    def __init__(self, shop: Shop, stripe: Running, seed: int) -> None:
        self.shop, self.stripe, self.rng = shop, stripe, random.Random(seed)
        self.number = 0
        self.exits: Counter[str] = Counter()
        self.killed: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        self.refunds: Counter[str] = Counter()
        self.currencies: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.repeated = self.scheduled = self.failed_later = 0

    def start(self, point: str | None, *arguments: object) -> Started:
        return self.shop.start("refunds", *arguments, point=point, before=HURRIED), point

    def end(self, started: Started) -> int:
        return self.ended(started).code

    def ended(self, started: Started) -> Outcome:
        """AssertionError for an exit code that is not documented."""
        process, point = started
        outcome = ended(process)
        assert outcome.code in DOCUMENTED, outcome
        assert "Traceback" not in outcome.stderr, outcome
        if outcome.code == KILLED:
            assert point is not None, f"killed by somebody else: {outcome}"
            self.killed[point.removeprefix(_PAYMENTS + ".")] += 1
        self.exits[str(outcome.code)] += 1
        return outcome

    def round(self) -> None:
        rng = self.rng
        self.number += 1
        charged, quantity = rng.choice([100, 1999, 500_000]), rng.randint(1, 3)
        subscribed = rng.random() < 0.3
        currency = rng.choice(CURRENCIES)
        charged = charged // 10 * 10 if currency == "kwd" else charged
        sell = self.shop.subscribe if subscribed else self.shop.buy
        bought = sell(charged, quantity, intent={"currency": currency})
        self.currencies[currency] += 1
        schedule = self.shop.schedule(bought) if subscribed and rng.random() < 0.4 else None
        for _ in range(rng.choice([0, 2, 6])):
            kind = rng.choice(KINDS)
            method = rng.choice(["GET", "POST", "POST"])
            seconds = rng.choice([0.0001, 0.01] if kind == "slow-bytes" else [0.05, 0.3])
            self.stripe.fault(kind, nth=rng.randint(1, 12), method=method, seconds=seconds)
            self.struck[kind] += 1
        self.stripe.state.next_statuses.clear()
        if rng.random() < 0.3:
            self.stripe.state.next_statuses.extend(
                rng.choices(["succeeded", "pending", "failed", "in_transit"], [5, 2, 1, 1], k=8)
            )
        asked = [self._asked(charged, currency, quantity, subscribed, schedule is not None) for _ in range(AT_ONCE)]
        running, of_creates, of_round = [], list[list[str]](), REVOKING if subscribed and rng.random() < 0.5 else POINTS
        for arguments in asked:
            point = rng.choice(of_round) if rng.random() < 0.5 else None
            running.append(self.start(point, "create", bought, *arguments, "--yes", "--json"))
            of_creates.append(arguments)
            if rng.random() < 0.1:
                point = rng.choice(of_round) if rng.random() < 0.5 else None
                running.append(self.start(point, "resume", "--all", "--json"))
                of_creates.append([])
        codes = [self.end(one) for one in running]
        self._never_too_much(bought, charged, currency, asked)
        self._settled()
        self._repeated(bought, [one for one, code in zip(of_creates, codes, strict=True) if code not in FINAL and one])
        self._never_too_much(bought, charged, currency, asked)
        self._agrees(bought, charged, quantity, subscribed)
        if schedule and self.stripe.state.get("subscription_schedule", ACCOUNT, schedule, False)["status"] == "active":
            self.scheduled += 1
            assert not any(row["quantity"] for row in self._rows(bought)), "revoked, and billed on by the schedule"
        if rng.random() < 0.3:
            self._fails_later(bought)

    def _repeated(self, bought: uuid.UUID, asked: list[list[str]]) -> None:
        """What was not answered for good is, and is refunded exactly once, or refused."""
        for arguments in [one for one in asked if "--request-id" in one]:
            self.repeated += 1
            outcome = self.ended(self.start(None, "create", bought, *arguments, "--yes", "--json"))
            assert outcome.code in FINAL, outcome
            if "request-id-reused" in outcome.stdout:
                continue
            request = arguments[arguments.index("--request-id") + 1]
            rows = [row for row in self._rows(bought) if row["request_id"] == request]
            ids = [str(row["id"]) for row in rows]
            made = [one for one in self._made(bought) if one["metadata"]["stackctl_refund_id"] in ids]
            expected = outcome.code == 0 and rows[0]["amount"] > 0
            assert sum(one["status"] == "succeeded" for one in made) == expected, (arguments, outcome, made)

    def _fails_later(self, bought: uuid.UUID) -> None:
        """The bank does not take the money, days after."""
        done = [row for row in self._rows(bought) if row["status"] == "succeeded" and row["stripe_refund"]]
        if not done:
            return
        self.failed_later += 1
        row = self.rng.choice(done)
        self.stripe.state.get("refund", ACCOUNT, row["stripe_refund"], False)["status"] = "failed"
        assert self.end(self.start(None, "resume", row["id"], "--json")) == 5
        assert [one["status"] for one in self._rows(bought) if one["id"] == row["id"]] == ["failed"]
        assert self.shop.row(bought, "refundedAt") is None

    def _asked(self, charged: int, currency: str, quantity: int, subscribed: bool, scheduled: bool) -> list[str]:
        rng = self.rng
        units = max(
            10, rng.choice([10, charged // 16, charged // 8, charged // 7, charged // 2, charged + 10]) // 10 * 10
        )
        amount = rng.choice([format_decimal(units, currency)] * 5 + ["0", "12.5%", "50%"])
        arguments = ["--full"] if rng.random() < 0.15 else ["--amount", amount]
        moneyless = arguments[-1] == "0"
        if subscribed and rng.random() < 0.1:
            arguments += ["--end", rng.choice(["now", "period"] + ["no"] * (not moneyless))]
        elif moneyless or rng.random() < 0.5:
            arguments += ["--revoke", str(rng.randint(int(moneyless), quantity))]
        arguments += ["--credit-note"] if subscribed and not moneyless and rng.random() < 0.4 else []
        self.kinds.update(["percent"] * any("%" in one for one in arguments) + ["moneyless"] * moneyless)
        self.kinds.update(one for one in arguments if one in ("--credit-note", "--end", "--full"))
        if rng.random() < 0.6:
            shared = rng.random() < 0.2
            arguments += ["--request-id", f"{self.number} shared" if shared else f"{time.monotonic_ns()}"]
        arguments += ["--release-schedule"] if scheduled and rng.random() < 0.05 else []
        return arguments + (["--again"] if rng.random() < 0.5 else [])

    def _intent(self, bought: uuid.UUID) -> str:
        found = self.shop.one("SELECT payment_intent FROM stackctl.refund WHERE purchase_id = %s LIMIT 1", bought)
        return found or ""

    def _made(self, bought: uuid.UUID) -> list[dict[str, Any]]:
        intent = self._intent(bought)
        with self.stripe.state.lock:
            notes = {each["refund"]: one["metadata"] for one in self.stripe.state.all("credit_note", ACCOUNT, False)
                     for each in one["refunds"]}  # fmt: skip
            made = [one for one in self.stripe.state.all("refund", ACCOUNT, False) if one["payment_intent"] == intent]
            return [one | {"metadata": notes.get(one["id"]) or one["metadata"]} for one in made]

    def _never_too_much(self, bought: uuid.UUID, charged: int, currency: str, asked: list[list[str]]) -> None:
        """Not more than was charged, not more often than was asked, and each refund of the ledger at most once."""
        made = self._made(bought)
        held = [one for one in made if one["status"] != "failed"]
        assert sum(one["amount"] for one in held) <= charged, made
        ours = Counter(one["metadata"]["stackctl_refund_id"] for one in made)
        assert not ours or max(ours.values()) == 1, f"one refund was made twice: {made}"
        rows = self._rows(bought)
        assert set(ours) <= {str(row["id"]) for row in rows}
        requests = [row["request_id"] for row in rows if row["request_id"]]
        assert len(requests) == len(set(requests)), "one request, two refunds"
        without = sum("--request-id" not in one for one in asked)
        assert sum(not row["request_id"] for row in rows) <= without, "more refunds than were asked for"
        # Of an amount, as often as it was asked for; `--full` is whatever remains.
        by_amount = Counter(parse_amount(one[1]).to_units(currency, charged) for one in asked if one[0] == "--amount")
        full = sum(one[0] == "--full" for one in asked)
        beyond = Counter(row["amount"] for row in rows) - by_amount
        assert beyond.total() <= full, (beyond, asked)

    def _rows(self, bought: uuid.UUID) -> list[dict[str, Any]]:
        from psycopg.rows import dict_row

        with self.shop.connect() as conn, conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute("SELECT * FROM stackctl.refund WHERE purchase_id = %s", (bought,)).fetchall()

    def _settled(self) -> None:
        """Stripe behaves, the pending ones end, `resume` finds out about all."""
        self.stripe.fake.faults.clear()
        with self.stripe.state.lock:
            for one in self.stripe.state.all("refund", ACCOUNT, False):
                if one["status"] in ("pending", "in_transit"):
                    one["status"] = self.rng.choice(["succeeded", "failed"])
            # Of those that `resume` sends itself.
            self.stripe.state.next_statuses.clear()
        two = [self.start(None, "resume", "--all", "--json") for _ in range(2)]
        for one in two:
            self.end(one)
        if self.end(self.start(None, "resume", "--all", "--json")) != 0:  # one that has failed is told once
            assert self.end(self.start(None, "resume", "--all", "--json")) == 0, "everything is settled"

    def _agrees(self, bought: uuid.UUID, charged: int, quantity: int, subscribed: bool) -> None:
        made, rows = {one["id"]: one for one in self._made(bought)}, self._rows(bought)
        for row in rows:
            one = made.pop(row["stripe_refund"], None)
            self.refunds[row["status"]] += 1
            assert row["status"] in ("succeeded", "failed", "canceled"), row
            given = row["status"] == "succeeded" and row["amount"] > 0
            assert (one["status"] == row["status"]) if one else not given, (row, one)
            assert one is None or (one["amount"], one["currency"]) == (row["amount"], row["currency"])
            assert row["status"] != "succeeded" or row["revoked"], row
            noted = "refund_amount" in row["params"] and given
            assert (row["credit_note"] is not None) == noted or row["status"] == "failed", row
        assert not made, f"Stripe has what the ledger has not: {made}"
        done = [row for row in rows if row["status"] == "succeeded"]
        back = sum(row["amount"] for row in done)
        assert (self.shop.row(bought, "refundedAt") is not None) == (back == charged), (rows, charged)
        taken = sum(row["quantity"] for row in done)
        assert taken <= quantity
        if not subscribed:
            assert (self.shop.row(bought, "revokedAt") is not None) == (taken == quantity)
            return
        found = self.stripe.state.get("subscription", ACCOUNT, f"sub_{bought}", False)
        if any(row["ends_now"] for row in done):
            assert (found["status"], self.shop.row(bought, "status")) == ("canceled", "canceled")
            return
        assert found["status"] == "active"
        left, item = self.shop.row(bought, "quantity", "cancelAtPeriodEnd"), found["items"]["data"][0]["quantity"]
        assert left == (item, found["cancel_at_period_end"]), (left, found)
        assert found["cancel_at_period_end"] == (taken == quantity)
        assert taken == quantity or item == quantity - taken

    def run(self, rounds: int, progress: bool = False) -> dict[str, Any]:
        for number in range(rounds):
            self.round()
            if progress and (number + 1) % 10 == 0:
                print(f"{number + 1} rounds, {sum(self.exits.values())} commands", file=sys.stderr, flush=True)
        assert self.end(self.start(None, "list", "--reconcile", "--json")) == 0, "ledger and Stripe agree"
        return {
            "rounds": rounds, "commands": sum(self.exits.values()), "exit_codes": dict(sorted(self.exits.items())),
            "killed_at": dict(sorted(self.killed.items())), "faults": dict(sorted(self.struck.items())),
            "refunds": dict(sorted(self.refunds.items())), "repeated": self.repeated,
            "kept_by_a_schedule": self.scheduled, "failed_later": self.failed_later,
            "currencies": dict(sorted(self.currencies.items())), "asked": dict(sorted(self.kinds.items())),
        }  # fmt: skip


def main() -> None:
    from stackctl.core.bundled import find_bundled
    from stackctl.migrate.folder import discover
    from stackctl.migrate.runner.run import apply_migrations
    from stackctl.postgres import embedded
    from tests.backend import seed_tenancies
    from tests.shop import Shop
    from tests.stripe_fake import running

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="refunds-") as directory, contextlib.ExitStack() as stack:
        server = embedded.attach(Path(directory) / "pg")
        stack.callback(server.release)
        server.ensure_database("shop")
        import psycopg

        with psycopg.connect(server.url("shop"), autocommit=True) as conn:
            apply_migrations(conn, discover(find_bundled("migrations")))
            seed_tenancies(conn)
        stripe = stack.enter_context(running())
        began = time.monotonic()
        found = Driver(Shop(Path(directory), server.url("shop"), stripe), stripe, given.seed).run(given.rounds, True)
        print(json.dumps(found | {"seed": given.seed, "seconds": round(time.monotonic() - began)}, indent=2))


if __name__ == "__main__":
    main()

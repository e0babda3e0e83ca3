"""A project that sells through Stripe: purchases in its database, their payments in the stand-in."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from stackctl.payments.gateway import REFUND_ID, Gateway
from stackctl.payments.refunds import ledger
from tests.backend import MINE, Outcome, Project, ended, insert
from tests.stripe_fake.server import KEY

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from stackctl.payments.refunds.ledger import Refund
    from tests.stripe_fake import Running

ACCOUNT = "acct_shop"
PRODUCT = {"displayName": "Lifetime", "customerType": "user", "stackable": True, "serverOnly": False,
           "includedItems": {}, "prices": {"p": {"USD": "24.99"}}}  # fmt: skip


class Shop(Project):
    def __init__(self, directory: Path, database_url: str, stripe: Running) -> None:
        super().__init__(directory, database_url)
        self.url, self.stripe = database_url, stripe
        self.settings["payments"] = {"stripe_api_key": KEY, "stripe_api_base": stripe.url}
        self.write()
        stripe.state.add("account", id=ACCOUNT)
        with self.connect() as conn:
            conn.execute('UPDATE "Project" SET "stripeAccountId" = %s', (ACCOUNT,))

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True)

    def buy(
        self, amount: int = 1999, quantity: int = 1, *, intent: dict[str, Any] | None = None, **values: Any
    ) -> uuid.UUID:
        """A one-time purchase that was paid for. `amount`: in cents; `intent`: of its payment."""
        paid = self.stripe.state.payment(ACCOUNT, amount, **(intent or {}))
        return self.purchase(quantity, stripePaymentIntentId=paid["id"], **values)

    def purchase(self, quantity: int = 1, *, tenancy: uuid.UUID = MINE, **values: Any) -> uuid.UUID:
        id_ = uuid.uuid4()
        row = {"tenancyId": tenancy, "id": id_, "customerId": "u1", "customerType": "USER", "productId": "lifetime",
               "product": PRODUCT, "quantity": quantity, "creationSource": "PURCHASE_PAGE", "priceId": "p"}  # fmt: skip
        with self.connect() as conn:
            insert(conn, "OneTimePurchase", row | values)
        return id_

    def subscribe(
        self,
        amount: int = 3000,
        quantity: int = 3,
        *,
        renewals: int = 0,
        intent: dict[str, Any] | None = None,
        **values: Any,
    ) -> uuid.UUID:
        """A subscription with a paid creation invoice, and paid renewals; invoices are called `in_<n>_<id>`."""
        id_, state = uuid.uuid4(), self.stripe.state
        item = {"id": f"si_{id_}", "object": "subscription_item", "quantity": quantity}
        state.add("subscription", ACCOUNT, id=f"sub_{id_}", livemode=False, cancel_at=None, cancel_at_period_end=False,
                  schedule=None, pending_update=None, status="active",
                  items={"object": "list", "data": [item], "has_more": False})  # fmt: skip
        row = {"tenancyId": MINE, "id": id_, "customerId": "t1", "customerType": "TEAM", "productId": "pro",
               "product": PRODUCT | {"displayName": "Pro"}, "stripeSubscriptionId": f"sub_{id_}", "status": "active",
               "currentPeriodStart": "2026-11-01", "currentPeriodEnd": "2026-12-01", "cancelAtPeriodEnd": False,
               "updatedAt": "2026-11-01", "creationSource": "PURCHASE_PAGE", "quantity": quantity,
               "priceId": "p"}  # fmt: skip
        with self.connect() as conn:
            insert(conn, "Subscription", row | values)
            now = datetime.now(UTC)  # no two invoices are of one millisecond
            for number in range(renewals + 1):
                invoice = f"in_{number}_{id_}"
                insert(conn, "SubscriptionInvoice",
                       {"tenancyId": MINE, "id": uuid.uuid4(), "stripeSubscriptionId": f"sub_{id_}",
                        "stripeInvoiceId": invoice, "isSubscriptionCreationInvoice": number == 0, "status": "paid",
                        "createdAt": now + timedelta(0, number - renewals), "updatedAt": "2026-11-01"})  # fmt: skip
                self.pay(invoice, amount, **(intent or {}))
        return id_

    def schedule(self, id_: uuid.UUID) -> str:
        """A schedule that manages the subscription from now on."""
        schedule = self.stripe.state.add("subscription_schedule", ACCOUNT, subscription=f"sub_{id_}", livemode=False,
                                         status="active")["id"]  # fmt: skip
        self.stripe.state.get("subscription", ACCOUNT, f"sub_{id_}", False)["schedule"] = schedule
        return schedule

    def pay(self, invoice: str, amount: int, **intent: Any) -> str:
        paid = self.stripe.state.payment(ACCOUNT, amount, **intent)
        self.stripe.state.add("invoice", ACCOUNT, id=invoice, status="paid", total=amount, amount_paid=amount,
                              currency=paid["currency"], livemode=False)  # fmt: skip
        self.stripe.state.add("invoice_payment", ACCOUNT, invoice=invoice, status="paid", livemode=False,
                              payment={"type": "payment_intent", "payment_intent": paid["id"]})  # fmt: skip
        return paid["id"]

    def create(self, point: str | None, bought: uuid.UUID, *arguments: str) -> subprocess.Popen[str]:
        """`refunds create`, confirmed, of everything if nothing else is said; to die at the point."""
        return self.start("refunds", "create", bought, *(arguments or ("--full",)), "--yes", "--json", point=point)

    def killed(self, point: str, bought: uuid.UUID, *arguments: str) -> None:
        outcome = ended(self.create(point, bought, *arguments))
        assert outcome.code == -9, f"it did not come by the point: {outcome}"

    def planned(self, conn: psycopg.Connection[Any], bought: uuid.UUID) -> Refund:
        """A refund that a killed process has left behind, not sent."""
        self.killed("stackctl.payments.refunds.execute:plan_refund:after", bought)
        return ledger.find_refunds(conn, purchase=bought)[0]

    def refund(self, id_: uuid.UUID, *arguments: str) -> Outcome:
        """`refunds create`, confirmed, as JSON."""
        return self.run("refunds", "create", id_, *arguments, "--yes", "--json")

    def resume(self, *arguments: str) -> Outcome:
        return self.run("refunds", "resume", *(arguments or ("--all",)), "--json")

    def status(self) -> str | None:
        """Of the only refund."""
        return self.one("SELECT status FROM stackctl.refund")

    def agree(self) -> None:
        """Ledger and Stripe, as the stand-in has it: each refund in one row, with its status and amount."""
        with self.connect() as conn, self.stripe.state.lock:
            rows = ledger.find_refunds(conn)
            held = {one["id"]: one for one in made(self.stripe)}
            notes = {each["refund"]: one["metadata"] for one in self.stripe.state.all("credit_note", ACCOUNT, False)
                     for each in one["refunds"]}  # fmt: skip
            held = {id_: one | {"metadata": notes.get(id_) or one["metadata"]} for id_, one in held.items()}
            marked = [one["metadata"][REFUND_ID] for one in held.values() if REFUND_ID in one["metadata"]]
            assert sorted(marked) == sorted(str(row.id) for row in rows if row.stripe_refund), (rows, held)
            for row in rows:
                assert row.is_settled, row
                if row.stripe_refund is None:
                    assert row.status in ("failed", "canceled") or not row.amount, row
                    continue
                own = held[row.stripe_refund]
                ours = (row.status, row.amount, row.currency, row.intent, str(row.id))
                theirs = (*(own[key] for key in ("status", "amount", "currency", "payment_intent")),
                          own["metadata"][REFUND_ID])  # fmt: skip
                assert ours == theirs

    def item(self, id_: uuid.UUID) -> dict[str, Any]:
        """A subscription's in Stripe."""
        return self.stripe.state.get("subscription", ACCOUNT, f"sub_{id_}", False)["items"]["data"][0]

    def one(self, statement: str, *values: Any) -> Any:
        """The first row, or its only column."""
        with self.connect() as conn:
            row = conn.execute(statement, values or None).fetchone()  # type: ignore[arg-type]
        return row[0] if row and len(row) == 1 else row

    def row(self, id_: uuid.UUID, *columns: str) -> Any:
        """Of a purchase or subscription."""
        names = ", ".join(f'"{column}"' for column in columns)
        for table in ("OneTimePurchase", "Subscription"):
            if self.one(f'SELECT count(*) FROM "{table}" WHERE id = %s', id_):
                return self.one(f'SELECT {names} FROM "{table}" WHERE id = %s', id_)
        raise AssertionError(f"no purchase {id_}")


def opened(stripe: Running, key: str = KEY) -> Gateway:
    return Gateway(key, stripe.url, ACCOUNT)


def refused(result: Outcome) -> tuple[int, str]:
    """Exit code and code of the error document."""
    return result.code, result.json["error"]["code"]


def made(stripe: Running) -> list[dict[str, Any]]:
    """The shop's refunds as Stripe has them, the oldest first."""
    return stripe.state.all("refund", ACCOUNT, False)[::-1]

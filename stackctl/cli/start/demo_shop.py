"""What one tenancy of the demo sells: products, purchases and a refund that is under way, with a stand-in for Stripe.

The ids are those of the help pages' examples.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg.types.json import Jsonb

from stackctl.backend.tenancies import ConfigLayers
from stackctl.payments.gateway import REFUND_ID
from stackctl.payments.refunds import ledger
from stackctl.payments.refunds.execute import make_idempotency_key
from stackctl.payments.stand_in.answers import PLATFORM, StandIn
from stackctl.postgres.statements import load_statements
from stackctl.rules.backend.configuration import to_config
from stackctl.rules.rules_file import load_rules

if TYPE_CHECKING:
    from pathlib import Path

    from stackctl.postgres.connect import Connection

ADA = UUID("ada18150-1210-4185-8ada-000000000001")
PURCHASE = UUID("0d4a9a10-5a0b-4d8e-9f2b-1c2d3e4f5a6b")
REFUNDED_PURCHASE = UUID("1e5bab21-6b1c-4e9f-8a3c-2d3e4f5a6b7c")
SUBSCRIPTION = UUID("2f6cbc32-7c2d-4fa0-9b4d-3e4f5a6b7c8d")
REFUND = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")
_ACCOUNT, _SUBSCRIPTION = "acct_acme", "sub_acme_fleet"
_PASS = {"displayName": "Rocket Pass", "customerType": "user", "stackable": True, "serverOnly": False,
         "includedItems": {}, "prices": {"once": {"USD": "24.99"}}}  # fmt: skip
_FLEET = {"displayName": "Fleet", "customerType": "team", "stackable": False, "serverOnly": False,
          "includedItems": {}, "prices": {"monthly": {"USD": "30.00", "interval": [1, "month"]}}}  # fmt: skip
_CONFIG = {
    "payments.testMode": True,
    "payments.products": {"rocket-pass": _PASS, "fleet": _FLEET},
}
_SQL = load_statements(__file__)


def seed_ada(conn: Connection, tenancy: UUID, project: str) -> None:
    """The user of the examples."""
    conn.execute(_SQL["ada"], {"tenancy": tenancy, "project": project, "ada": ADA})


def seed_shop(conn: Connection, tenancy: UUID, project: str, rules: Path) -> StandIn:
    """Products, purchases, the rules of the file and a refund in the database; returns what Stripe has of them."""
    stripe = StandIn()
    state = stripe.state
    state.add("account", id=PLATFORM)
    state.add("account", id=_ACCOUNT, details_submitted=True, charges_enabled=True, payouts_enabled=True,
              requirements={"currently_due": []})  # fmt: skip
    _add_methods(stripe)
    layers = ConfigLayers(tenancy, project, "main", None, _CONFIG)
    common = {"tenancy": tenancy, "project": project, "account": _ACCOUNT, "ada": ADA}
    conn.execute(_SQL["connect_account"], common)
    conn.execute(_SQL["config"], common | {"config": Jsonb(to_config(layers, load_rules(rules)))})
    conn.execute(_SQL["trigger_rules"], common)
    intents: dict[UUID, str] = {}
    for id_, quantity, days in ((PURCHASE, 1, 12), (REFUNDED_PURCHASE, 2, 3)):
        intents[id_] = state.payment(_ACCOUNT, 2499 * quantity, created=_ago(days))["id"]
        conn.execute(_SQL["purchase"], common | {"id": id_, "product": Jsonb(_PASS), "quantity": quantity,
                                                 "intent": intents[id_], "age": timedelta(days=days)})  # fmt: skip
    _add_subscription(conn, stripe, common)
    _add_refund(conn, stripe, tenancy, intents[REFUNDED_PURCHASE])
    return stripe


def _ago(days: int) -> int:
    return int(time.time()) - days * 86400


def _add_methods(stripe: StandIn) -> None:
    def shown(on: bool) -> dict[str, Any]:
        value = "on" if on else "off"
        preference = {"overridable": True, "preference": value, "value": value}
        return {"available": on, "display_preference": preference}

    stripe.state.add(
        "payment_method_configuration", _ACCOUNT, parent="pmc_platform", is_default=False, livemode=False,
        card=shown(True), apple_pay=shown(False), google_pay=shown(True), link=shown(True), klarna=shown(True),
        sepa_debit=shown(False),
    )  # fmt: skip


def _add_subscription(conn: Connection, stripe: StandIn, common: dict[str, Any]) -> None:
    """Three seats, paid for twice."""
    item = {"id": "si_acme_fleet", "object": "subscription_item", "quantity": 3}
    stripe.state.add(
        "subscription", _ACCOUNT, id=_SUBSCRIPTION, livemode=False, cancel_at=None, cancel_at_period_end=False,
        status="active", metadata={}, items={"object": "list", "data": [item], "has_more": False},
    )  # fmt: skip
    conn.execute(_SQL["subscription"], common | {"id": SUBSCRIPTION, "subscription": _SUBSCRIPTION,
                                                 "product": Jsonb(_FLEET)})  # fmt: skip
    for number, days in enumerate((39, 9)):
        invoice = f"in_acme_{number + 1}"
        conn.execute(_SQL["invoice"], common | {"subscription": _SUBSCRIPTION, "invoice": invoice,
                                                "is_first": number == 0, "age": timedelta(days=days)})  # fmt: skip
        intent = stripe.state.payment(_ACCOUNT, 9000, created=_ago(days))["id"]
        stripe.state.add("invoice", _ACCOUNT, id=invoice, status="paid", total=9000, amount_paid=9000, currency="usd",
                         livemode=False)  # fmt: skip
        stripe.state.add("invoice_payment", _ACCOUNT, invoice=invoice, status="paid", livemode=False,
                         payment={"type": "payment_intent", "payment_intent": intent})  # fmt: skip


def _add_refund(conn: Connection, stripe: StandIn, tenancy: UUID, intent: str) -> None:
    """One that was sent by a process that died before the answer came: Stripe has made it, the ledger does not know."""
    metadata = {REFUND_ID: str(REFUND), "stackctl_purchase_id": str(REFUNDED_PURCHASE)}
    params: dict[str, Any] = {"payment_intent": intent, "amount": 500, "expand": ["charge"], "metadata": metadata}
    ledger.insert_refund(conn, {
        "id": REFUND, "tenancy": tenancy, "purchase_type": "one-time-purchase", "purchase_id": REFUNDED_PURCHASE,
        "customer": str(ADA), "request_id": None, "account": _ACCOUNT, "livemode": False, "intent": intent,
        "invoice": None, "subscription": None, "amount": 500, "currency": "usd", "quantity": 0,
        "entries": [{"entry_index": 0, "quantity": 0, "amount_usd": "5.00"}], "is_full": False,
        "note": "arrived late", "params": params, "key": make_idempotency_key(str(REFUND)),
    })  # fmt: skip
    ledger.mark_submitted(conn, REFUND)
    stripe.state.refund(_ACCOUNT, {"payment_intent": intent, "amount": 500, "metadata": metadata}, False)

"""The ledger of refunds: each is written here before Stripe hears of it, and holds its money until it failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from stackctl.core.errors import UsageError
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from stackctl.payments.purchases import PurchaseType
    from stackctl.postgres.connect import Connection

Status = Literal["planned", "submitted", "pending", "succeeded", "failed", "canceled"]
_SQL = load_statements(__file__)
_NO_FILTERS = dict.fromkeys(("id", "request", "tenancy", "account", "purchase", "customer", "status", "since", "until"))


@dataclass(frozen=True)
class Refund:
    """One row. `amount`: in the currency's smallest unit. `entries`: what was asked, as `{entry_index, quantity,
    amount_usd}`; `is_full`: all that remained was. `params` and `key` are what Stripe is asked, each time alike. `age`:
    seconds since it was sent first, or planned.

    `quantity_left`: what the subscription is to keep of what it had when the money was back; `revoked`: Stripe has it
    so (true where there is nothing to do).
    """

    id: UUID
    status: Status
    tenancy: UUID
    purchase_type: PurchaseType
    purchase_id: UUID
    customer: str
    request_id: str | None
    account: str
    livemode: bool
    intent: str
    invoice: str | None
    subscription: str | None
    amount: int
    currency: str
    quantity: int
    entries: list[dict[str, Any]]
    is_full: bool
    note: str | None
    params: dict[str, Any]
    key: str
    created_by: str
    created_at: datetime
    submitted_at: datetime | None
    stripe_refund: str | None
    failure: str | None
    quantity_left: int | None
    revoked: bool
    age: float

    @property
    def holds_money(self) -> bool:
        return self.status not in ("failed", "canceled")

    @property
    def stays_revoked(self) -> bool:
        """Its money was back, the subscription was lowered, and then the bank did not take the money."""
        return not self.holds_money and self.revoked and self.quantity > 0 and self.quantity_left is not None

    @property
    def is_settled(self) -> bool:
        """Nothing is left to be found out or done."""
        return not self.holds_money or (self.status == "succeeded" and self.revoked)


def find_refunds(
    conn: Connection, *, unsettled: bool = False, limit: int | None = None, **filters: Any
) -> Sequence[Refund]:
    """The newest first; a filter is one of `id`, `request`, `tenancy`, `account`, `purchase`, `customer`, `status`,
    `since` and `until`."""
    with conn.cursor(row_factory=class_row(Refund)) as cursor:
        values = _NO_FILTERS | filters | {"unsettled": unsettled, "limit": limit}
        return cursor.execute(_SQL["find_refunds"], values).fetchall()


def get_refund(conn: Connection, id_: UUID) -> Refund:
    """Raises UsageError `unknown-refund`."""
    found = find_refunds(conn, id=id_)
    if not found:
        raise UsageError(f"there is no refund {id_}", code="unknown-refund", hint="`stackctl refunds list` names them")
    return found[0]


def insert_refund(conn: Connection, values: Mapping[str, Any]) -> None:
    """Write what will be asked; it holds its money from the commit on."""
    conn.execute(
        _SQL["insert_refund"], {**values, "entries": Jsonb(values["entries"]), "params": Jsonb(values["params"])}
    )


def mark_submitted(conn: Connection, id_: UUID) -> bool:
    """Say that Stripe is asked from now on; False where somebody else has. Committed before Stripe is."""
    return conn.execute(_SQL["mark_submitted"], {"id": id_}).rowcount == 1


def mark_sent_again(conn: Connection, id_: UUID) -> bool:
    """Say that it is sent once more; False where it is not submitted any more."""
    return conn.execute(_SQL["mark_sent_again"], {"id": id_}).rowcount == 1


def record_status(conn: Connection, id_: UUID, *, status: str, stripe: str, failure: str | None) -> None:
    conn.execute(_SQL["record_status"], {"id": id_, "status": status, "stripe": stripe, "failure": failure})


def close_refund(
    conn: Connection, id_: UUID, status: Literal["failed", "canceled"], failure: str, *, first: bool = False
) -> None:
    """End one that Stripe does not have: its money is free again. `first`: unless it was sent again."""
    conn.execute(_SQL["close_refund"], {"id": id_, "status": status, "failure": failure, "first": first})


def fix_quantity_left(conn: Connection, id_: UUID) -> None:
    """Settle once what the subscription is to keep, as an absolute number."""
    conn.execute(_SQL["fix_quantity_left"], {"id": id_})


def find_least_quantity(conn: Connection, tenancy: UUID, subscription: UUID) -> int | None:
    """What the subscription is to have once all refunds whose money is back are done with; None without its row."""
    row = conn.execute(_SQL["find_least_quantity"], {"tenancy": tenancy, "subscription": subscription}).fetchone()
    return row[0] if row else None


def give_up_quantity(conn: Connection, id_: UUID) -> None:
    """Nothing is to be taken off the subscription any more."""
    conn.execute(_SQL["give_up_quantity"], {"id": id_})


def mark_revoked(conn: Connection, id_: UUID) -> None:
    conn.execute(_SQL["mark_revoked"], {"id": id_})

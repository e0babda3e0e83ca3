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
_FILTERS = ("id", "request", "tenancy", "account", "purchase", "customer", "status", "since", "until", "stripe_refund",
            "named", "ids")  # fmt: skip
_NO_FILTERS: dict[str, Any] = {"unsettled": False, "limit": None} | dict.fromkeys(_FILTERS)

_NOT_ASKED: dict[str, Any] = {"asked": None, "asked_by": None, "part_of": None, "ends_now": False}


@dataclass(frozen=True)
class Refund:
    """One row. `amount`: in the currency's smallest unit, and 0 where no money was asked for. `entries`: what it came
    to, as `{entry_index, quantity, amount_usd}`, or with `amount` and `currency` where that is not US dollars;
    `is_full`: all that remained was asked for. `params` and `key` are what Stripe is asked, each time alike. `age`:
    seconds since it was sent first, or planned; `sends`: how often it was. `waits_for`: what Stripe told of one that is
    pending.

    `ends_now`: the subscription, and not with its period. `quantity_left`: what it is to keep of what it had when the
    money was back; `revoked`: Stripe has it so (true where there is nothing to do). `is_purchase_revoked`: a one-time
    purchase is, though no refund that succeeded accounts for all of it. `asked`: what makes it the same request when it
    comes again; `asked_by`: who asked; `part_of`: the first of those that were asked for together.
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
    sends: int
    stripe_refund: str | None
    failure: str | None
    waits_for: dict[str, Any] | None
    quantity_left: int | None
    revoked: bool
    age: float
    is_purchase_revoked: bool
    asked: dict[str, Any]
    asked_by: str | None
    part_of: UUID | None
    ends_now: bool
    credit_note: str | None

    @property
    def noted_on(self) -> str | None:
        """The invoice that a credit note is made of, which the refund comes with."""
        return self.invoice if "refund_amount" in self.params else None

    @property
    def holds_money(self) -> bool:
        return self.status not in ("failed", "canceled")

    @property
    def is_repeatable(self) -> bool:
        """It ended without an answer: Stripe has never taken it up, and the same request may plan it anew."""
        return self.status == "canceled" and self.submitted_at is None and self.stripe_refund is None

    @property
    def stays_revoked(self) -> bool:
        """Its money was back, its quantity was revoked, and then the bank did not take the money."""
        if self.holds_money or not self.quantity or self.stripe_refund is None:
            return False
        return self.is_purchase_revoked or (self.revoked and self.quantity_left is not None)

    @property
    def is_settled(self) -> bool:
        """Nothing is left to be found out or done."""
        return not self.holds_money or (self.status == "succeeded" and self.revoked)


def find_refunds(
    conn: Connection, *, unsettled: bool = False, limit: int | None = None, **filters: Any
) -> Sequence[Refund]:
    """The newest first; a filter is one of `id`, `request`, `tenancy`, `account`, `purchase`, `customer`, `status`,
    `since`, `until` and `stripe_refund`."""
    with conn.cursor(row_factory=class_row(Refund)) as cursor:
        values = _NO_FILTERS | filters | {"unsettled": unsettled, "limit": limit}
        return cursor.execute(_SQL["find_refunds"], values).fetchall()


def find_named(conn: Connection, account: str, stripe_refunds: Sequence[str], ids: Sequence[str]) -> Sequence[Refund]:
    """An account's refunds that Stripe knows by these ids of its own, or that have these ids themselves."""
    with conn.cursor(row_factory=class_row(Refund)) as cursor:
        values = _NO_FILTERS | {"account": account, "named": list(stripe_refunds), "ids": list(ids)}
        return cursor.execute(_SQL["find_refunds"], values).fetchall()


def get_refund(conn: Connection, id_: UUID) -> Refund:
    """Raises UsageError `unknown-refund`."""
    found = find_refunds(conn, id=id_)
    if not found:
        raise UsageError(f"there is no refund {id_}", code="unknown-refund", hint="`stackctl refunds list` names them")
    return found[0]


def insert_refund(conn: Connection, values: Mapping[str, Any]) -> None:
    """Write what will be asked; it holds its money from the commit on."""
    conn.execute(_SQL["insert_refund"], _to_columns(values))


def replan_refund(conn: Connection, values: Mapping[str, Any]) -> None:
    """Plan one that `is_repeatable` anew."""
    conn.execute(_SQL["replan_refund"], _to_columns(values))


def _to_columns(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**_NOT_ASKED, **values} | {
        name: Jsonb(values[name]) for name in ("entries", "params", "asked") if name in values
    }


def mark_submitted(conn: Connection, id_: UUID, within: float | None = None) -> int | None:
    """Say that Stripe is asked from now on; returns the number of the sending. Committed before Stripe is asked.

    None where it is not planned any more, or was planned earlier than `within` seconds ago.
    """
    return _one(conn, "mark_submitted", {"id": id_, "within": within})


def mark_sent_again(conn: Connection, id_: UUID, within: float) -> int | None:
    """Say that it is sent once more; returns the number of the sending.

    None where it is not submitted any more, or was sent first earlier than `within` seconds ago.
    """
    return _one(conn, "mark_sent_again", {"id": id_, "within": within})


def _one(conn: Connection, statement: str, values: Mapping[str, Any]) -> int | None:
    row = conn.execute(_SQL[statement], values).fetchone()
    return row[0] if row else None


def record_status(
    conn: Connection,
    id_: UUID,
    *,
    status: str,
    stripe: str | None,
    failure: str | None,
    waits_for: Mapping[str, Any] | None = None,
    credit_note: str | None = None,
) -> None:
    values = {"status": status, "stripe": stripe, "failure": failure, "waits_for": waits_for and Jsonb(waits_for)}
    conn.execute(_SQL["record_status"], values | {"id": id_, "credit_note": credit_note})


def fail_refund(conn: Connection, id_: UUID, failure: str, sending: int) -> None:
    """End one that Stripe refuses, unless somebody else has sent it after this sending."""
    conn.execute(_SQL["fail_refund"], {"id": id_, "failure": failure, "sending": sending})


def take_back(
    conn: Connection, id_: UUID, status: Literal["planned", "canceled"], failure: str | None, sending: int
) -> None:
    """This sending came to nothing, as if it had not been; unless somebody else has sent it after."""
    conn.execute(_SQL["take_back"], {"id": id_, "status": status, "failure": failure, "sending": sending})


def cancel_planned(conn: Connection, id_: UUID, failure: str, before: float) -> bool:
    """End one that was planned earlier than `before` seconds ago; False where it is not planned any more."""
    return _one(conn, "cancel_planned", {"id": id_, "failure": failure, "before": before}) is not None


def give_up(conn: Connection, id_: UUID, failure: str) -> bool:
    """End one of which Stripe says nothing more; False where it has ended otherwise meanwhile."""
    return _one(conn, "give_up", {"id": id_, "failure": failure}) is not None


def fix_quantity_left(conn: Connection, id_: UUID) -> None:
    """Settle once what the subscription is to keep, as an absolute number."""
    conn.execute(_SQL["fix_quantity_left"], {"id": id_})


def find_least_quantity(conn: Connection, tenancy: UUID, subscription: UUID) -> int | None:
    """What the subscription is to have once all refunds whose money is back are done with; None without its row."""
    row = conn.execute(_SQL["find_least_quantity"], {"tenancy": tenancy, "subscription": subscription}).fetchone()
    return row[0] if row else None


def give_up_quantity(conn: Connection, id_: UUID) -> bool:
    """Nothing is to be taken off the subscription any more; False where nothing was left to be."""
    return _one(conn, "give_up_quantity", {"id": id_}) is not None


def mark_revoked(conn: Connection, id_: UUID) -> None:
    conn.execute(_SQL["mark_revoked"], {"id": id_})

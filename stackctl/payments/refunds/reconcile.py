"""The ledger of refunds held against Stripe: every difference, by name."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from stackctl.payments import purchases
from stackctl.payments.money import format_money
from stackctl.payments.refunds import ledger
from stackctl.payments.refunds.balance import find_own
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from stackctl.payments.gateway import Gateway, StripeRefund
    from stackctl.payments.refunds.ledger import Refund
    from stackctl.postgres.connect import Connection

Kind = Literal[
    "not-in-stripe", "not-in-ledger", "made-elsewhere", "made-twice", "status", "amount", "quantity-not-revoked"
]  # fmt: skip
_SQL = load_statements(__file__)
CLOCKS_DIFFER = timedelta(hours=1)  # at the most: Stripe's, and the database's


@dataclass(frozen=True)
class Acknowledgement:
    """Who answers for a difference, when, and why."""

    by: str
    at: datetime
    why: str


@dataclass(frozen=True)
class Difference:
    kind: Kind
    refund: UUID | None
    stripe_refund: str | None
    message: str
    acknowledged: Acknowledgement | None = None

    def is_of(self, id_: str) -> bool:
        return id_ in (str(self.refund), self.stripe_refund)


@dataclass(frozen=True)
class Comparison:
    """`compared`: refunds of the ledger; `skipped`: those of the mode that the key is not of."""

    compared: int
    skipped: int
    differences: Sequence[Difference]


def compare_account(
    conn: Connection, gateway: Gateway, account: str, tenancy: UUID | None, since: datetime | None
) -> Comparison:
    """What was refunded on an account since a time, or ever; of one of its tenancies, or of all.

    Raises what Stripe's gateway does. Stripe is read first: a refund that is made meanwhile is then in the ledger, and
    looked for.
    """
    stripe_refunds = gateway.list_refunds_since(since)
    rows = {one.id: one for one in ledger.find_refunds(conn, account=account, tenancy=tenancy, since=since)}
    # Planned earlier than Stripe made them, or another tenancy's.
    named = ledger.find_named(
        conn, account, [one.id for one in stripe_refunds], [one.ledger_id for one in stripe_refunds if one.ledger_id]
    )
    rows |= {one.id: one for one in named if tenancy in (None, one.tenancy)}
    of_mode = [one for one in rows.values() if one.livemode == (gateway.mode == "live")]
    # Made with credit notes, and not known by Stripe's ids yet.
    unknown = [one for one in of_mode if one.noted_on and one.stripe_refund is None and one.submitted_at]
    noted = {found.id: found for one in unknown for found in gateway.list_refunds(one.intent, one.noted_on)}
    stripe_refunds = [noted.get(one.id, one) for one in stripe_refunds]
    differences = _compare_refunds(gateway, stripe_refunds, of_mode)
    known = {one.stripe_refund for one in named} | {str(one.id) for one in named}
    strangers = [one for one in stripe_refunds if one.id not in known and one.ledger_id not in known]
    if tenancy is not None:
        others = purchases.find_intents_of_others(conn, tenancy, [one.intent for one in strangers if one.intent])
        strangers = [one for one in strangers if one.intent not in others]
    found = [*differences, *map(_describe_stranger, strangers)]
    return Comparison(len(of_mode), len(rows) - len(of_mode), _with_acknowledgements(conn, account, found))


def _with_acknowledgements(conn: Connection, account: str, found: Sequence[Difference]) -> Sequence[Difference]:
    """A difference that has become another one since is not acknowledged."""
    row = conn.execute(_SQL["acknowledgements_exist"]).fetchone()
    if not found or not (row and row[0]):
        return found
    known = {
        (kind, refund, stripe_refund, message): Acknowledgement(by, at, why)
        for kind, refund, stripe_refund, message, by, at, why in conn.execute(
            _SQL["list_acknowledgements"], {"account": account}
        )
    }
    return [replace(one, acknowledged=known.get((one.kind, *_ids(one), one.message))) for one in found]


def _ids(one: Difference) -> tuple[str, str]:
    return str(one.refund or ""), one.stripe_refund or ""


def acknowledge_difference(conn: Connection, account: str, one: Difference, why: str, by: str) -> Difference:
    """Say that it is in order as it is; it is known as acknowledged until it becomes another one."""
    refund, stripe_refund = _ids(one)
    values = {"account": account, "kind": one.kind, "refund": refund, "stripe_refund": stripe_refund,
              "message": one.message, "why": why, "by": by}  # fmt: skip
    row = conn.execute(_SQL["acknowledge"], values).fetchone()
    assert row is not None, "it is written or replaced"
    return replace(one, acknowledged=Acknowledgement(by, row[0], why))


def _describe_stranger(one: StripeRefund) -> Difference:
    what = f"Stripe has {_describe(one)}"
    if one.ledger_id:
        return Difference("not-in-ledger", None, one.id, f"{what}, as {one.ledger_id}; the ledger does not")
    return Difference("made-elsewhere", None, one.id, f"{what}; it was not made by stackctl")


def _describe(one: StripeRefund) -> str:
    return f"a refund of {format_money(one.amount, one.currency)} of {one.intent} that is {one.status}"


def _compare_refunds(
    gateway: Gateway, stripe_refunds: Sequence[StripeRefund], refunds: Sequence[Refund]
) -> Sequence[Difference]:
    """By Stripe's own ids, where the ledger has them; whatever else carries a refund's id was made twice."""
    held = _Held(stripe_refunds)
    missing = [one for one in refunds if held.find_own(one) is None and _is_due_in_stripe(one)]
    if missing:
        # Stripe made them earlier than the time that was asked for, or after it was asked.
        since = min(one.created_at for one in missing) - CLOCKS_DIFFER
        held = _Held([*stripe_refunds, *gateway.list_refunds_since(since)])
    found: list[Difference] = []
    for refund in refunds:
        own = held.find_own(refund)
        found += _compare_refund(refund, own)
        found += [
            Difference("made-twice", refund.id, one.id, f"Stripe has {_describe(one)}, too, which carries its id")
            for one in held.carrying[str(refund.id)]
            if own is None or one.id != own.id
        ]
    return found


class _Held:
    """What Stripe has: by its own ids, and by those that they carry."""

    def __init__(self, stripe_refunds: Sequence[StripeRefund]) -> None:
        self._by_id = {one.id: one for one in stripe_refunds}
        self.carrying: dict[str, list[StripeRefund]] = defaultdict(list)
        for one in self._by_id.values():
            self.carrying[one.ledger_id or ""].append(one)

    def find_own(self, refund: Refund) -> StripeRefund | None:
        if refund.stripe_refund is not None:
            return self._by_id.get(refund.stripe_refund)
        return find_own(refund, self.carrying[str(refund.id)])


def _is_due_in_stripe(refund: Refund) -> bool:
    """What was refused, or was never sent, has left nothing behind; nor what was without money."""
    return refund.stripe_refund is not None or (refund.amount > 0 and refund.holds_money and refund.status != "planned")


def _compare_refund(refund: Refund, stripe_refund: StripeRefund | None) -> Sequence[Difference]:
    stripe_id = stripe_refund.id if stripe_refund else refund.stripe_refund

    def difference(kind: Kind, message: str) -> Difference:
        return Difference(kind, refund.id, stripe_id, message)

    found: list[Difference] = []
    if stripe_refund is None and _is_due_in_stripe(refund):
        return [difference("not-in-stripe", f"the ledger has it as {refund.status}, and Stripe does not have it")]
    if stripe_refund is not None and stripe_refund.status != refund.status:
        what = f"the ledger says {refund.status}, Stripe says {stripe_refund.status}"
        found.append(difference("status", f"{what}; `stackctl refunds resume {refund.id}` takes it over"))
    if stripe_refund is not None and (stripe_refund.amount, stripe_refund.currency) != (refund.amount, refund.currency):
        ours, theirs = (
            format_money(refund.amount, refund.currency),
            format_money(stripe_refund.amount, stripe_refund.currency),
        )
        found.append(difference("amount", f"the ledger says {ours}, Stripe says {theirs}"))
    if refund.status == "succeeded" and not refund.revoked:
        found.append(
            difference("quantity-not-revoked", f"{refund.quantity} are still to be taken off the subscription")
        )
    return found

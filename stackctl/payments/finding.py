"""A purchase found by what people have in hand: an id of ours or of Stripe's, a customer's id or address.

The operated database and the ledger are asked first; Stripe only for what it alone knows: whose a charge, a customer of
its own, a refund that was not made here, or the payment of an invoice is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg.rows import class_row

from stackctl.backend.users import find_user
from stackctl.core.errors import StateError, UsageError
from stackctl.payments.connection import ledger_exists, list_accounts
from stackctl.payments.purchases import find_purchase, product_name
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from stackctl.payments.gateway import Gateway
    from stackctl.payments.purchases import Purchase
    from stackctl.postgres.connect import Connection

MAX_LISTED = 10  # purchases that an error names
MAX_ACCOUNTS = 20  # that are asked whose an id is
_SQL = load_statements(__file__)
_ASKED = ("pi_", "ch_", "py_", "re_", "pyr_", "cus_")  # what Stripe is asked about
_KNOWN = ("in_", "sub_")  # what the operated database knows, or nobody


@dataclass(frozen=True)
class NamedPurchase:
    """A purchase or subscription, and of the latter the invoice whose payment was named, if one was."""

    purchase: Purchase
    invoice: str | None = None


@dataclass(frozen=True)
class _Match:
    id: UUID
    tenancy: UUID
    invoice: str | None


@dataclass(frozen=True)
class _Bought:
    """One of a customer's purchases; `of_all`: how many it has."""

    id: UUID
    tenancy: UUID
    type: str
    product: Any
    product_id: str | None
    created_at: datetime
    of_all: int


def find_named_purchase(
    conn: Connection, named: str, tenancy: UUID | None, open_gateway: Callable[[str], Gateway]
) -> NamedPurchase:
    """The purchase that `named` stands for, in a tenancy or in any.

    Raises UsageError (`purchase-not-found`, `several-purchases`, `unknown-user`, `ambiguous-user`, `usage`), and what
    Stripe's connection raises where it has to be asked.
    """
    named = named.strip()
    if named.startswith((*_ASKED, *_KNOWN)):
        return _find_by_stripe_id(conn, named, tenancy, open_gateway)
    if "@" in named:
        user = find_user(conn, named, tenancy)
        return _find_of_customer(conn, named, [str(user.id)], user.tenancy)
    try:
        id_ = UUID(named)
    except ValueError:
        return _find_of_customer(conn, named, [named], tenancy)
    try:
        return NamedPurchase(find_purchase(conn, id_, tenancy))
    except UsageError as error:
        if error.code != "purchase-not-found":
            raise
    return _find_of_customer(conn, named, [str(id_), named], tenancy)


def _find_by_stripe_id(
    conn: Connection, named: str, tenancy: UUID | None, open_gateway: Callable[[str], Gateway]
) -> NamedPurchase:
    found = _find_known(conn, named, tenancy)
    if found is None and named.startswith(_ASKED):
        accounts = list_accounts(conn, tenancy)
        if len(accounts) > MAX_ACCOUNTS:
            raise UsageError(
                f"{named} is not known here, and {len(accounts)} connected accounts are too many to ask",
                code="usage",
                hint="say with --tenancy whose it is",
            )
        for account in accounts:
            try:
                return _ask(conn, named, tenancy, open_gateway(account))
            except StateError as error:
                if error.code != "stripe-not-found":
                    raise
    if found is None:
        where = f" in tenancy {tenancy}" if tenancy else ""
        raise UsageError(
            f"no purchase or subscription{where} belongs to {named}",
            code="purchase-not-found",
            hint="`stackctl payments products --customer ID` shows what a customer bought",
        )
    return found


def _find_known(conn: Connection, named: str, tenancy: UUID | None) -> NamedPurchase | None:
    """As far as it stands in the operated database or in the ledger."""
    asked = {"id": named, "tenancy": tenancy, "limit": MAX_LISTED}
    with conn.cursor(row_factory=class_row(_Match)) as cursor:
        found = cursor.execute(_SQL["find_by_stripe_id"], asked).fetchall()
        if not found and ledger_exists(conn):
            found = cursor.execute(_SQL["find_in_ledger"], asked).fetchall()
    if len(found) > 1:
        raise UsageError(
            [f"{named} belongs to several purchases:", *(f"  {one.id} of tenancy {one.tenancy}" for one in found)],
            code="several-purchases",
            hint="name one by its id, or say which tenancy with --tenancy",
            details={"purchases": [str(one.id) for one in found]},
        )
    return NamedPurchase(find_purchase(conn, found[0].id, found[0].tenancy), found[0].invoice) if found else None


def _ask(conn: Connection, named: str, tenancy: UUID | None, gateway: Gateway) -> NamedPurchase:
    """What the account knows of it. Raises StateError `stripe-not-found` where that leads to nothing."""
    if named.startswith("cus_"):
        customer = gateway.get_customer(named)
        if customer is None:
            raise StateError(f"the customer {named} is not one of the backend's", code="stripe-not-found")
        return _find_of_customer(conn, named, [customer], tenancy)
    intent = named if named.startswith("pi_") else gateway.find_intent(named)
    found = None if intent is None or intent == named else _find_known(conn, intent, tenancy)
    if found is None and intent is not None:
        invoice = gateway.find_invoice(intent)
        found = None if invoice is None else _find_known(conn, invoice, tenancy)
    if found is None:
        raise StateError(f"{named} is of no purchase", code="stripe-not-found")
    return found


def _find_of_customer(conn: Connection, named: str, customers: Sequence[str], tenancy: UUID | None) -> NamedPurchase:
    """The customer's only purchase. Raises UsageError `several-purchases`, which lists the newest."""
    asked = {"customers": list(customers), "tenancy": tenancy, "limit": MAX_LISTED}
    with conn.cursor(row_factory=class_row(_Bought)) as cursor:
        found = cursor.execute(_SQL["list_of_customer"], asked).fetchall()
    if len(found) == 1:
        return NamedPurchase(find_purchase(conn, found[0].id, found[0].tenancy))
    if not found:
        where = f" in tenancy {tenancy}" if tenancy else ""
        raise UsageError(
            f"{named} is no purchase{where}, and no customer that has bought anything",
            code="purchase-not-found",
            hint="name a purchase by its id or by Stripe's (pi_, ch_, in_, sub_, re_), or a customer by id or address",
        )
    number = found[0].of_all
    listed = [
        f"  {one.id}  {one.created_at:%Y-%m-%d}  {one.type} of {product_name(one.product, one.product_id)}"
        for one in found
    ]
    raise UsageError(
        [f"{named} has {number} purchases" + (", the newest:" if number > len(found) else ":"), *listed],
        code="several-purchases",
        hint="name one by its id" + ("; `stackctl payments products --customer ID` lists all" if number > len(found)
                                     else ""),
        details={"purchases": [str(one.id) for one in found]},
    )  # fmt: skip

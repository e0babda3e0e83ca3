"""Whether the backend takes notice of what a refund has revoked.

Newer backends don't read what a customer owns from the purchases' rows but from a ledger that they derive of them, and
write themselves whenever they write such a row (the table "BulldozerStorageEngine"). What stackctl writes into a row is
not in it. Of a purchase paid once they know nothing but all or nothing; a subscription comes to them from Stripe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from stackctl.payments.refunds.ledger import Refund
    from stackctl.postgres.connect import Connection

Entitlement = Literal["behind", "whole"]
_SQL = load_statements(__file__)


def has_derived_ledger(conn: Connection) -> bool:
    """Whether this database's backend derives what is owned."""
    row = conn.execute(_SQL["has_derived_ledger"]).fetchone()
    return bool(row and row[0])


def find_entitlement(conn: Connection, refund: Refund) -> Entitlement | None:
    """How the backend sees what a refund has revoked; None where it sees it, or needs not.

    "behind": its ledger has the purchase as it was. "whole": only a part was revoked, and it grants all of them on.
    """
    revokes = refund.purchase_type == "one-time-purchase" and refund.quantity and refund.status == "succeeded"
    if not revokes or not has_derived_ledger(conn):
        return None
    row = conn.execute(_SQL["is_revoked"], {"tenancy": refund.tenancy, "purchase": refund.purchase_id}).fetchone()
    if row is None:
        return None
    in_row, in_ledger = row
    if not in_row:
        return "whole"
    return None if in_ledger else "behind"

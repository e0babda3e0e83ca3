"""stackctl refunds show"""

from __future__ import annotations

from stackctl.cli.command import Run, command
from stackctl.cli.refunds.shared import (
    STATUS_COLOURS,
    RefundId,
    describe_pending,
    find_refund,
    refund_document,
    show_entitlement,
)


@command(example="stackctl refunds show 7c9e6679-7425-40de-944b-e07fc1f90ae7")
def show(run: Run, refund: RefundId) -> None:
    """Show one refund as the ledger has it. Stripe is not asked; `resume` does that.

    Prints a line for each thing known about it.
    Exit codes: 0 printed; 2 no such refund; 4 the operated database can't be reached; 5 it was never migrated.
    """
    from stackctl.payments.entitlements import find_entitlement
    from stackctl.payments.money import format_money

    with run.database() as conn:
        one = find_refund(conn, refund)
        entitlement = find_entitlement(conn, one)
    taken = f", {one.quantity} revoked" if one.quantity else ""
    facts = {
        "refund": str(one.id),
        "status": one.status,
        "amount": format_money(one.amount, one.currency) + taken,
        "purchase": f"{one.purchase_id} ({one.purchase_type})",
        "customer": one.customer,
        "tenancy": str(one.tenancy),
        "payment": one.intent + (f", invoice {one.invoice}" if one.invoice else ""),
        "in Stripe": one.stripe_refund,
        "note no.": one.credit_note,
        "failure": one.failure,
        "reason": one.params.get("reason"),
        "note": one.note,
        "request": one.request_id,
        "asked": f"{one.created_at:%Y-%m-%d %H:%M:%S} UTC by {one.asked_by or one.created_by}",
        "sent": f"{one.submitted_at:%Y-%m-%d %H:%M:%S} UTC" if one.submitted_at else None,
    }

    def lines() -> None:
        for name, value in facts.items():
            if value is not None:
                run.console.line(f"{name:<10}{value}", STATUS_COLOURS.get(one.status) if name == "status" else None)
        for text in describe_pending(one):
            run.console.line(text, "yellow")
        if one.stays_revoked:
            run.console.line(f"{one.quantity} stay revoked though the money came back", "yellow")
        if entitlement is not None:
            show_entitlement(run, entitlement)
        if not one.is_settled:
            run.console.line()
            run.console.line(f"not settled: stackctl refunds resume {one.id}", "yellow")

    run.finish({"refund": refund_document(one), "entitlement": entitlement}, lines)

"""What the commands of stackctl refunds share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.arguments import find_tenancy, parse_text_option, parse_uuid
from stackctl.core.errors import UsageError
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackctl.cli.command import Run
    from stackctl.payments.entitlements import Entitlement
    from stackctl.payments.gateway import Gateway
    from stackctl.payments.purchases import Purchase
    from stackctl.payments.refunds.balance import RefundableBalance
    from stackctl.payments.refunds.execute import Outcome
    from stackctl.payments.refunds.ledger import Refund
    from stackctl.postgres.connect import Connection

UNSETTLED, REFUSED = 6, 5  # exit codes
PurchaseId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="A purchase or subscription, by its id, an id of Stripe's, or its customer's id or address."
    ),
]
OptionalPurchaseId = Annotated[
    str | None,
    typer.Argument(
        metavar="ID", help="A purchase or subscription: its id, Stripe's, or its customer's; or an address."
    ),
]
Tenancy = Annotated[
    str | None, typer.Option("--tenancy", metavar="TENANCY", help="Only needed if several tenancies have this id.")
]
Invoice = Annotated[
    str | None,
    typer.Option("--invoice", metavar="ID", help="Of a subscription: refund this invoice, not the first one."),
]
Latest = Annotated[
    bool, typer.Option("--latest", help="Of a subscription: the last payment that was made, not the first one.")
]
TenancyFilter = Annotated[str | None, typer.Option("--tenancy", metavar="TENANCY", help="Only this tenancy's.")]
RefundId = Annotated[str, typer.Argument(metavar="REFUND", help="The id that create printed, or Stripe's (re_).")]
REFUND_COLUMNS = (
    "refund",
    Column("asked", spare=3),
    Column("amount", right=True),
    Column("status", folds=True),
    Column("customer", spare=2),
    Column("by", spare=1),
)
STATUS_COLOURS = {"succeeded": "green", "failed": "red", "canceled": "red"}


def find_refund(conn: Connection, named: str) -> Refund:
    """The refund of the ledger that has this id, or that Stripe knows by it. Raises UsageError."""
    from stackctl.payments.refunds import ledger

    named = named.strip()
    if named.startswith(("re_", "pyr_")):
        found = ledger.find_refunds(conn, stripe_refund=named)
        if found:
            return found[0]
        raise UsageError(
            f"the ledger has no refund {named}: it was not made by stackctl",
            code="unknown-refund",
            hint=f"`stackctl refunds preview {named}` shows its purchase, and all that was refunded of it",
        )
    try:
        return ledger.get_refund(conn, parse_uuid(named, "refund"))
    except UsageError as error:
        if error.code == "usage":
            raise UsageError(
                f"{named!r} is not the id of a refund: a UUID, or Stripe's (re_…)",
                code="usage",
                hint="`stackctl refunds list` names them; with --purchase ID those of a purchase, however it is named",
            ) from None
        error.hint = "`stackctl refunds list` names them; `list --purchase ID` those of a purchase, however it is named"
        raise


def run_naming_refund(run: Run, refund: Refund, work: Callable[[], Outcome]) -> Outcome:
    """Do it; who interrupts it hears which refund is left to be settled."""
    try:
        return work()
    except KeyboardInterrupt:
        run.console.warn(f"refund {refund.id} is left unsettled; `stackctl refunds resume {refund.id}` goes on with it")
        raise


def finish_outcome(run: Run, conn: Connection, outcome: Outcome) -> None:
    from stackctl.payments.entitlements import find_entitlement

    refund, problem = outcome.refund, outcome.problem
    entitlement = find_entitlement(conn, refund)
    if problem is not None:
        run.console.warn(problem.message)
    code = 0 if refund.status == "succeeded" and refund.revoked else UNSETTLED if refund.holds_money else REFUSED

    def show() -> None:
        show_outcome(run, outcome)
        if entitlement is not None:
            show_entitlement(run, entitlement)

    document = {"refund": refund_document(refund), "entitlement": entitlement}
    run.finish(document, show, ok=code == 0, exit_code=code)


def refund_document(refund: Refund) -> dict[str, Any]:
    from stackctl.payments.money import format_decimal

    waits_for = refund.waits_for or {}
    return {
        "id": refund.id,
        "status": refund.status,
        "tenancy": refund.tenancy,
        "purchase_type": refund.purchase_type,
        "purchase_id": refund.purchase_id,
        "amount_usd": format_decimal(refund.amount) if refund.currency == "usd" else None,
        "amount": format_decimal(refund.amount, refund.currency),
        "currency": refund.currency,
        "entries": list_entries(refund.entries),
        "stripe_refund_id": refund.stripe_refund,
        "failure": refund.failure,
        "pending_reason": waits_for.get("reason"),
        "next_action": waits_for.get("next_action"),
        "instructions_email": waits_for.get("instructions_email"),
        "created_at": refund.created_at,
        "customer": refund.customer,
        "payment_intent": refund.intent,
        "invoice": refund.invoice,
        "credit_note": refund.credit_note,
        "reason": refund.params.get("reason"),
        "note": refund.note,
        "request_id": refund.request_id,
        "created_by": refund.created_by,
        "by": refund.asked_by,
        "submitted_at": refund.submitted_at,
        "revoked": refund.revoked,
        "stays_revoked": refund.quantity if refund.stays_revoked else 0,
    }


_PENDING_REASONS = {
    "processing": "Stripe is working on it",
    "insufficient_funds": "the account's balance does not cover it; it goes out once there is money",
    "charge_pending": "the charge itself is not settled yet",
}


def describe_pending(refund: Refund) -> list[str]:
    """What one that is pending waits for, as far as Stripe tells."""
    told = refund.waits_for or {}
    reason, action, address = told.get("reason"), told.get("next_action"), told.get("instructions_email")
    found = [f"it waits: {_PENDING_REASONS.get(reason, reason)}"] if reason else []
    if action:
        details = action.get(action.get("type") or "") or {}
        sent = details.get("email_sent") or {}
        what = f"the customer has to act ({action.get('type') or 'as Stripe says'})"
        if sent.get("email_sent_to"):
            what += f": Stripe has written to {sent['email_sent_to']}{_on(sent.get('email_sent_at'))}"
        if details.get("expires_at"):
            what += f"; it expires{_on(details['expires_at'])}"
        found.append(what)
    if address:
        found.append(f"instructions go to {address}")
    return found


def _on(seconds: int | None) -> str:
    from datetime import UTC, datetime

    return f" on {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}" if seconds else ""


def list_entries(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As the ledger has them, each with `amount` and `currency`; `amount_usd` is null where that is another."""
    usd = {"amount_usd": None, "currency": "usd"}
    return [usd | {"amount": one.get("amount_usd")} | one for one in entries]


def describe_failure(refund: Refund) -> str:
    """Of one that failed, or was canceled."""
    text = f"not refunded: {refund.failure or f'Stripe says {refund.status}'}"
    if refund.credit_note:
        text += f"; credit note {refund.credit_note} stands, until it is voided in Stripe's dashboard"
    if not refund.stays_revoked:
        return text
    return f"{text}; {refund.quantity} stay revoked, so give the money back alone, with --amount"


def show_outcome(run: Run, outcome: Outcome) -> None:
    from stackctl.payments.money import format_money

    refund, line = outcome.refund, run.console.line
    money, resume = format_money(refund.amount, refund.currency), f"run `stackctl refunds resume {refund.id}`"
    match refund.status:
        case "succeeded":
            is_taken = refund.revoked and (not refund.subscription or refund.quantity_left is not None)
            taken = f", {refund.quantity} revoked" if refund.quantity and is_taken else ""
            if refund.revoked and refund.quantity_left == 0:
                taken += "; the subscription " + ("has ended" if refund.ends_now else "ends with its period")
            stripe_id = f"  ({refund.stripe_refund})" if refund.stripe_refund else ""
            line(f"refunded {money if refund.amount else 'nothing'}{taken}{stripe_id}", "green")
            if refund.credit_note:
                line(f"credit note {refund.credit_note} of invoice {refund.invoice}")
            if not refund.revoked:
                what = "is not ended yet" if refund.ends_now else "keeps its quantity until now"
                line(f"the subscription {what}: {resume}", "yellow")
        case "pending":
            line(f"{money} are on their way, which may take days: Stripe says pending  ({refund.stripe_refund})")
            for text in describe_pending(refund):
                line(text, "yellow")
            line(f"to see what became of it, {resume}")
        case "planned" | "submitted":
            line(f"whether {money} were refunded is not known yet: {resume}", "yellow")
        case "failed" | "canceled":
            line(describe_failure(refund), "red")
    line(f"refund {refund.id}")


def show_entitlement(run: Run, found: Entitlement) -> None:
    """What the backend goes on granting, and how that is brought up."""
    line = run.console.line
    if found == "whole":
        line("the backend goes on granting all of them: of a purchase it knows only all or nothing", "yellow")
    else:
        line("the backend still grants it: its own ledger has the purchase as it was", "yellow")
        line("to bring it up, resend the payment's payment_intent.succeeded to the backend in Stripe's dashboard")
        line("(Workbench, Events; the customer gets the receipt once more)")


def find_purchase(
    run: Run,
    conn: Connection,
    named: str,
    tenancy: str | None,
    invoice: str | None,
    open_gateway: Callable[[str], Gateway],
    *,
    latest: bool = False,
) -> tuple[Purchase, str | None]:
    """The purchase that is named, and of a subscription the invoice: the option's, or that of a payment so named."""
    from stackctl.payments.finding import find_named_purchase
    from stackctl.payments.purchases import find_latest_invoice

    text = parse_text_option(named, "ID") or ""
    found = find_named_purchase(conn, text, find_tenancy(conn, tenancy), open_gateway)
    if str(found.purchase.id) != text.strip().lower():
        of = f", invoice {found.invoice}" if found.invoice not in (None, text.strip()) else ""
        run.console.info(f"{text} is of {found.purchase.type.replace('-', ' ')} {found.purchase.id}{of}")
    invoice = parse_text_option(invoice, "--invoice")
    if latest:
        if invoice is not None:
            raise UsageError("--latest and --invoice can't be used together", code="usage")
        invoice = find_latest_invoice(conn, found.purchase)
    if None not in (invoice, found.invoice) and invoice != found.invoice:
        raise UsageError(
            f"{text} is of invoice {found.invoice}, and {invoice} is another one",
            code="usage",
            hint="name the subscription by its id",
        )
    return found.purchase, invoice or found.invoice


def read_balance(
    run: Run,
    conn: Connection,
    purchase: Purchase,
    invoice: str | None,
    open_gateway: Callable[[str], Gateway],
    *,
    takes_over: bool = True,
) -> tuple[RefundableBalance, Gateway | None]:
    """`takes_over`: what Stripe says of refunds that the ledger has otherwise is written down."""
    from stackctl.backend.tenancies import read_layers
    from stackctl.payments import connection
    from stackctl.payments.refunds import balance

    if invoice is not None and purchase.type != "subscription":
        raise UsageError("--invoice goes with a subscription; this is a one-time purchase", code="usage")
    gateways: list[Gateway] = []

    def open_account() -> tuple[str, Gateway]:
        account = connection.find_account(conn, read_layers(conn, purchase.tenancy))
        gateways.append(open_gateway(account))
        return account, gateways[0]

    found = balance.read_balance(conn, purchase, invoice, open_account)
    for error in found.made_twice.values():
        run.console.warn(error.message)
    if found.payment and found.payment.inquired:
        run.console.warn("the bank has asked about this payment (an inquiry, no dispute yet): it can be refunded, and "
                         "all of it refunded ends the inquiry")  # fmt: skip
    return _take_over(run, conn, found) if takes_over else found, gateways[0] if gateways else None


def _take_over(run: Run, conn: Connection, balance: RefundableBalance) -> RefundableBalance:
    """What Stripe has told of the ledger's refunds is written down, as it was read anyhow."""
    import psycopg

    from stackctl.payments.refunds.execute import take_over_seen

    try:
        found = take_over_seen(conn, balance)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction):
        run.console.warn("Stripe says otherwise than the ledger, which this role may not write: see `refunds resume`")
        return balance
    for one in found:
        run.console.info(f"refund {one.id} is {one.status} by now: Stripe says so")
    return balance.reread(conn) if found else balance


def refunds_table(run: Run, refunds: Sequence[Refund]) -> None:
    if refunds:
        run.console.table(REFUND_COLUMNS, list_rows(refunds))


def list_rows(refunds: Sequence[Refund]) -> list[tuple[object, ...]]:
    """The rows of a table of refunds: its columns are REFUND_COLUMNS."""
    from stackctl.payments.money import format_money

    return [
        (
            str(one.id),
            one.created_at,
            format_money(one.amount, one.currency),
            one.status if one.is_settled or one.status != "succeeded" else "succeeded, quantity not lowered",
            one.customer,
            one.asked_by or one.created_by,
        )
        for one in refunds
    ]

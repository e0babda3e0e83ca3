"""What a purchase stands at: charged, refunded, held by refunds under way, and what remains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stackctl.core.errors import StateError
from stackctl.payments import purchases
from stackctl.payments.money import format_money, is_known_currency
from stackctl.payments.refunds import ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackctl.payments.gateway import Gateway, Payment, StripeRefund
    from stackctl.payments.purchases import Invoice, Purchase
    from stackctl.payments.refunds.ledger import Refund
    from stackctl.postgres.connect import Connection


@dataclass(frozen=True)
class RefundableBalance:
    """`payment` is None where nothing was paid through Stripe. `stripe_refunds`: the payment's, as Stripe has them;
    `ledger`: the purchase's refunds, of all its payments, the newest first. `invoices`: a subscription's, the newest
    first. Money is in the smallest unit of the payment's currency."""

    purchase: Purchase
    account: str | None
    invoice: str | None
    payment: Payment | None
    stripe_refunds: Sequence[StripeRefund]
    ledger: Sequence[Refund]
    invoices: Sequence[Invoice] = ()

    @property
    def newer_invoices(self) -> Sequence[Invoice]:
        """Paid after the one that the payment is of."""
        ids = [one.id for one in self.invoices]
        newer = self.invoices[: ids.index(self.invoice)] if self.invoice in ids else ()
        return [one for one in newer if one.status == "paid"]

    def is_of_payment(self, refund: Refund) -> bool:
        return self.payment is not None and refund.intent == self.payment.intent

    @property
    def charged(self) -> int:
        return self.payment.received if self.payment else 0

    @property
    def refunded(self) -> int:
        """Given back, or on the way to be."""
        return sum(one.amount for one in self.stripe_refunds if one.holds_money)

    @property
    def held(self) -> int:
        """By refunds of the ledger that Stripe did not have when it was asked."""
        return sum(one.amount for one in self._only_in_ledger() if one.holds_money)

    @property
    def remaining(self) -> int:
        return max(0, self.charged - self.refunded - self.held)

    @property
    def made_twice(self) -> dict[str, StateError]:
        """What to say of the ids of the ledger that several of Stripe's refunds carry."""
        found: dict[str, StateError] = {}
        for id_ in {one.ledger_id for one in self.stripe_refunds if one.ledger_id}:
            several = [f"{one.id} ({one.status})" for one in self.stripe_refunds if one.ledger_id == id_]
            if len(several) > 1:
                found[id_] = StateError(
                    f"Stripe has made refund {id_} {len(several)} times: {', '.join(several)}",
                    code="refund-made-twice",
                    hint="look at the payment in Stripe's dashboard",
                )
        return found

    @property
    def is_paid_back(self) -> bool:
        """All of the charge is back, for good."""
        back = sum(one.amount for one in self.stripe_refunds if one.status == "succeeded")
        back += sum(one.amount for one in self._only_in_ledger() if one.status == "succeeded")
        # One that Stripe called pending when it was asked, and that has succeeded since.
        later = {one.stripe_refund for one in self.ledger if one.status == "succeeded"}
        back += sum(one.amount for one in self.stripe_refunds if one.status == "pending" and one.id in later)
        return 0 < self.charged <= back

    @property
    def bought(self) -> int:
        """Of a subscription: before anything was revoked, as far as the ledger knows."""
        if self.purchase.type == "subscription":
            return self.purchase.quantity + sum(
                one.quantity for one in self.ledger if one.revoked and one.quantity_left
            )
        return self.purchase.quantity

    @property
    def quantity_left(self) -> int:
        """What was bought and is neither revoked nor about to be."""
        if self.purchase.type == "one-time-purchase":
            taken = sum(one.quantity for one in self.ledger if one.holds_money)
            return 0 if self.purchase.revoked else max(0, self.purchase.quantity - taken)
        if self.purchase.revoked and any(one.quantity_left == 0 and one.holds_money for one in self.ledger):
            return 0
        taken = sum(one.quantity for one in self.ledger if one.holds_money and not one.revoked)
        return max(0, self.purchase.quantity - taken)

    @property
    def is_taken_back(self) -> bool:
        """All of a one-time purchase is revoked, for good."""
        taken = sum(one.quantity for one in self.ledger if one.status == "succeeded")
        return self.purchase.type == "one-time-purchase" and 0 < self.purchase.quantity <= taken

    @property
    def refusal(self) -> StateError | None:
        """Why no money can be refunded."""
        if self.lasting_refusal is not None or self.payment is None:
            return self.lasting_refusal
        if not is_known_currency(self.payment.currency):
            return StateError(
                f"{self.purchase.id} was paid in {self.payment.currency.upper()}, a currency of which it is not known "
                "how Stripe counts it",
                code="currency-not-supported",
                hint="refund it in Stripe's dashboard",
            )
        if self.payment.disputed:
            return StateError(
                f"the charge of {self.purchase.id} is disputed: the bank decides about the money",
                code="charge-disputed",
                hint="answer the dispute in Stripe's dashboard",
            )
        return self._nothing_remains_error(self.payment) if self.remaining == 0 else None

    @property
    def lasting_refusal(self) -> StateError | None:
        """Why nothing can be revoked either: it was not bought."""
        purchase, payment = self.purchase, self.payment
        if purchase.source == "TEST_MODE":
            return StateError(f"{purchase.id} is a test-mode purchase: no money was taken",
                              code="test-mode-purchase-non-refundable")  # fmt: skip
        if purchase.stripe_id is None:
            return StateError(
                f"{purchase.id} has no payment in Stripe: it was made as {purchase.source}", code="purchase-not-found"
            )
        if payment is None or payment.received == 0:
            what = f"invoice {self.invoice} has" if self.invoice else f"{purchase.id} has"
            return StateError(
                f"{what} no completed payment: nothing was charged", code="not-charged", hint=self._renewal_hint
            )
        return None

    def _nothing_remains_error(self, payment: Payment) -> StateError:
        under_way = [
            one for one in self.ledger if one.holds_money and one.status != "succeeded" and self.is_of_payment(one)
        ]
        if under_way:
            return StateError(
                f"all that remains of {self.purchase.id} is held by refund {under_way[0].id}, which is "
                f"{under_way[0].status}",
                code="refund-under-way",
                hint=f"`stackctl refunds resume {under_way[0].id}` finds out what became of it",
            )
        return StateError(
            f"{self.purchase.id} is refunded: all {format_money(payment.received, payment.currency)}",
            code="already-refunded",
            hint=self._renewal_hint,
        )

    @property
    def _renewal_hint(self) -> str | None:
        return "a renewal is refunded with --invoice" if self.purchase.type == "subscription" else None

    def find_seen(self, refund: Refund) -> StripeRefund | None:
        """A refund of the ledger as Stripe has it, by Stripe's own id or by ours."""
        if not self.is_of_payment(refund):
            return None
        if refund.stripe_refund is not None:
            return next((one for one in self.stripe_refunds if one.id == refund.stripe_refund), None)
        return find_own(refund, self.stripe_refunds)

    def _only_in_ledger(self) -> Sequence[Refund]:
        ids, ledger_ids = {one.id for one in self.stripe_refunds}, {one.ledger_id for one in self.stripe_refunds}
        return [
            one
            for one in self.ledger
            if self.is_of_payment(one) and one.stripe_refund not in ids and str(one.id) not in ledger_ids
        ]

    def reread(self, conn: Connection) -> RefundableBalance:
        """As the database has it now; what Stripe said stays."""
        purchase = purchases.find_purchase(conn, self.purchase.id, self.purchase.tenancy)
        return replace(self, purchase=purchase, ledger=list_refunds(conn, purchase))


def find_own(refund: Refund, stripe_refunds: Sequence[StripeRefund]) -> StripeRefund | None:
    """The refund that carries its id; of several, which should not be, the first one made."""
    own = [one for one in stripe_refunds if one.ledger_id == str(refund.id)]
    return min(own[::-1], key=lambda one: (not one.holds_money, one.created_at), default=None)


def list_refunds(conn: Connection, purchase: Purchase) -> Sequence[Refund]:
    return ledger.find_refunds(conn, tenancy=purchase.tenancy, purchase=purchase.id)


def read_balance(
    conn: Connection, purchase: Purchase, invoice: str | None, open_account: Callable[[], tuple[str, Gateway]]
) -> RefundableBalance:
    """At most two calls to Stripe, and none where nothing was paid. `open_account`: the account, and Stripe on it.

    Raises UsageError and StateError `invoice-not-found`, StateError `invoice-paid-in-parts`, and what Stripe's gateway
    does. The ledger is read first: a refund that ends meanwhile is rather counted as held than forgotten.
    """
    known = list_refunds(conn, purchase)
    if purchase.stripe_id is None or purchase.source == "TEST_MODE":
        return RefundableBalance(purchase, None, None, None, (), known)
    account, gateway = open_account()
    if purchase.type == "one-time-purchase":
        payment, invoice_id = gateway.get_payment(purchase.stripe_id), None
    else:
        invoice_id = purchases.find_invoice(conn, purchase, invoice)
        paid = gateway.list_invoice_payments(invoice_id)
        if len(paid) > 1:
            raise StateError(
                f"invoice {invoice_id} was paid in {len(paid)} parts; which one is meant is not known",
                code="invoice-paid-in-parts",
                hint="refund it in Stripe's dashboard",
            )
        payment = paid[0] if paid else None
    # One of a credit note that the ledger does not know by Stripe's id yet.
    is_noted = any(one.noted_on == invoice_id and one.stripe_refund is None for one in known if one.noted_on)
    refunds = gateway.list_refunds(payment.intent, invoice_id if is_noted else None) if payment else ()
    invoices = purchases.list_invoices(conn, purchase)
    return RefundableBalance(purchase, account, invoice_id, payment, refunds, known, invoices)

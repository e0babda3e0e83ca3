"""The objects of the stand-in, by account; and what the requests that move money do to them."""

from __future__ import annotations

import copy
import itertools
import json
import threading
import time
from collections import defaultdict, deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackctl.payments.stand_in.errors import Refused, missing

EXAMPLES = json.loads(Path(__file__).with_name("examples.json").read_text(encoding="utf-8"))
PREFIXES = {
    "account": "acct", "payment_intent": "pi", "charge": "ch", "refund": "re", "invoice": "in", "subscription": "sub",
    "subscription_item": "si", "payment_method_configuration": "pmc", "event": "evt", "invoice_payment": "inpay",
    "customer": "cus", "dispute": "dp", "subscription_schedule": "sub_sched",
    "credit_note": "cn",
}  # fmt: skip
# Fields of earlier versions of the API, which an object of the current one has not.
GONE = {
    "invoice": frozenset(("subscription", "subscription_details", "payment_intent", "charge", "paid")),
    "payment_intent": frozenset(("charges", "invoice")),
    "charge": frozenset(("invoice",)),
    "subscription": frozenset(("current_period_start", "current_period_end")),
}
if TYPE_CHECKING:
    from collections.abc import Iterator

FREE = ("failed", "canceled")  # statuses of refunds that take no money
Object = dict[str, Any]


class State:
    """One lock for all: a request sees and changes the objects alone."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.ignored: set[str] = set()  # payment methods whose preference is stored and has no effect
        # Of refunds to come, each a status, or that and what else it says; succeeded when there is none.
        self.next_statuses: deque[str | Object] = deque()
        self._objects: dict[tuple[str, str], dict[str, Object]] = defaultdict(dict)
        self._number = itertools.count(1)

    def to_document(self) -> list[Any]:
        """Each object with the account that it is of."""
        with self.lock:
            return [[account, one] for (account, _), objects in self._objects.items() for one in objects.values()]

    def restore(self, document: list[Any]) -> None:
        """Hold what `to_document` gave, and nothing else."""
        with self.lock:
            self._objects.clear()
            for account, one in document:
                self._objects[account, one["object"]][one["id"]] = one
            # Where `add` goes on counting.
            self._number = itertools.count(1 + sum(map(len, self._objects.values())))

    def add(self, kind: str, account: str = "", **values: Any) -> Object:
        """An object made of the example of its kind, newest last. `account`: empty for the platform's own."""
        with self.lock:
            if gone := GONE.get(kind, frozenset()) & values.keys():
                raise ValueError(f"a {kind} of the current version has no {', '.join(sorted(gone))}")
            found = copy.deepcopy(EXAMPLES.get(kind, {})) | {"object": kind, "created": int(time.time())} | values
            found["id"] = values.get("id") or f"{PREFIXES[kind]}_{next(self._number):08d}"
            self._objects[account, kind][found["id"]] = found
            return found

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Afterwards every object is as it was before."""
        with self.lock:
            before = copy.deepcopy(self._objects)
        try:
            yield
        finally:
            with self.lock:
                self._objects = before

    def payment(self, account: str = "", amount: int = 1999, **values: Any) -> Object:
        """A payment intent that was paid by a charge."""
        with self.lock:
            charge = self.add("charge", account, amount=amount, amount_captured=amount, paid=True, status="succeeded",
                              livemode=values.get("livemode", False))  # fmt: skip
            intent = self.add(
                "payment_intent",
                account,
                **{"amount": amount, "amount_received": amount, "currency": "usd", "status": "succeeded",
                   "latest_charge": charge["id"], "livemode": False} | values,
            )  # fmt: skip
            charge["payment_intent"] = intent["id"]
            return intent

    def has_account(self, id_: str) -> bool:
        with self.lock:
            return id_ in self._objects["", "account"]

    def get(self, kind: str, account: str, id_: str, livemode: bool) -> Object:
        found = self._objects[account, kind].get(id_)
        if found is None or not self._is_of_mode(account, found, livemode):
            raise missing(kind, id_)
        return found

    def _is_of_mode(self, account: str, found: Object, livemode: bool) -> bool:
        """A refund does not say of which it is: it is of its payment's."""
        if found["object"] == "refund":
            found = self._objects[account, "payment_intent"].get(found.get("payment_intent") or "", found)
        return found.get("livemode", livemode) == livemode

    def all(self, kind: str, account: str, livemode: bool) -> list[Object]:
        """The newest first, as Stripe lists."""
        found = list(self._objects[account, kind].values())[::-1]
        return [one for one in found if self._is_of_mode(account, one, livemode)]

    def refund(self, account: str, params: dict[str, Any], livemode: bool) -> Object:
        """POST /v1/refunds."""
        if "payment_intent" not in params:
            raise Refused(400, "One of the following params should be provided: payment_intent", param="payment_intent")
        intent = self.get("payment_intent", account, params["payment_intent"], livemode)
        charge = self.get("charge", account, intent["latest_charge"], livemode)
        disputes = [one for one in self.all("dispute", account, livemode) if one["payment_intent"] == intent["id"]]
        if charge.get("disputed") and not (disputes and all(map(_is_refundable, disputes))):
            raise Refused(400, f"Charge {charge['id']} has been charged back", code="charge_disputed")
        left = intent["amount_received"] - self.refunded(account, intent["id"])
        if left <= 0:
            raise Refused(400, f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
        amount = params.get("amount", left)
        if amount < 1:
            raise Refused(400, "Invalid positive integer", code="parameter_invalid_integer", param="amount")
        if amount > left:
            raise Refused(400, f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})",
                          param="amount")  # fmt: skip
        _check_step(intent["currency"], amount)
        given = self.next_statuses.popleft() if self.next_statuses else "succeeded"
        said = given if isinstance(given, dict) else {"status": given}
        status = said["status"]
        if status == "pending":
            said = {"pending_reason": "processing"} | said
        charge["amount_refunded"] = self.refunded(account, intent["id"]) + (0 if status in FREE else amount)
        return self.add(
            "refund", account, **said, amount=amount, charge=charge["id"], payment_intent=intent["id"],
            currency=intent["currency"], reason=params.get("reason"), metadata=params.get("metadata") or {},
        )  # fmt: skip

    def credit_note(self, account: str, params: dict[str, Any], livemode: bool, *, preview: bool = False) -> Object:
        """Of a paid invoice: what it comes to is refunded, credited or given back elsewhere, to the cent."""
        invoice = self.get("invoice", account, params.get("invoice", ""), livemode)
        if invoice["status"] not in ("open", "paid"):
            raise Refused(400, "Credit notes can only be created on finalized invoices.", param="invoice")
        amount, refunded = params.get("amount", 0), params.get("refund_amount", 0)
        if amount < 1:
            raise Refused(400, "One of the following params should be provided: amount, lines", param="amount")
        notes = [one for one in self.all("credit_note", account, livemode) if one["invoice"] == invoice["id"]]
        left = invoice["total"] - sum(one["total"] for one in notes if one["status"] == "issued")
        if amount > left:
            raise Refused(400, f"The credit note amount ({amount}) exceeds what is left of the invoice ({left})",
                          param="amount")  # fmt: skip
        given = refunded + params.get("credit_amount", 0) + params.get("out_of_band_amount", 0)
        if given != amount:
            raise Refused(400, "The sum of refund and credit must equal the amount.", param="refund_amount")
        made = [self._noted_refund(account, invoice["id"], refunded, livemode, preview)] if refunded else []
        values = {
            "invoice": invoice["id"], "amount": amount, "total": amount, "currency": invoice["currency"],
            "status": "issued", "type": "post_payment", "livemode": livemode, "reason": params.get("reason"),
            "memo": params.get("memo"), "metadata": params.get("metadata") or {}, "refunds": made,
        }  # fmt: skip
        if preview:
            return {"object": "credit_note", "id": "cn_preview", **values}
        return self.add("credit_note", account, **values)

    def _noted_refund(self, account: str, invoice: str, amount: int, livemode: bool, preview: bool) -> Object:
        """Without the note's metadata; of an invoice that several payments have paid, they have to be named."""
        paid = [one for one in self.all("invoice_payment", account, livemode) if one["invoice"] == invoice]
        if len(paid) != 1:
            raise Refused(
                400, "`refund_amount` needs an invoice with one payment; use `refunds`", param="refund_amount"
            )
        intent = paid[0]["payment"]["payment_intent"]
        left = self.get("payment_intent", account, intent, livemode)["amount_received"] - self.refunded(account, intent)
        if amount > left:
            raise Refused(400, f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})",
                          param="refund_amount")  # fmt: skip
        asked = {"payment_intent": intent, "amount": amount}
        made = "re_preview" if preview else self.refund(account, asked, livemode)["id"]
        return {"refund": made, "amount_refunded": amount, "type": "refund"}

    def refunded(self, account: str, intent: str) -> int:
        """The cents that refunds of a payment intent hold."""
        with self.lock:
            found = self._objects[account, "refund"].values()
            return sum(one["amount"] for one in found if one["payment_intent"] == intent and one["status"] not in FREE)

    def update_subscription(self, account: str, id_: str, params: dict[str, Any], livemode: bool) -> Object:
        found = self.get("subscription", account, id_, livemode)
        if found.get("schedule") and not params.keys().isdisjoint(("cancel_at_period_end", "cancel_at")):
            raise Refused(
                400,
                f"The subscription is managed by the subscription schedule `{found['schedule']}`, and updating any "
                "cancelation behavior directly is not allowed. Please update the schedule instead.",
                param="cancel_at_period_end",
            )
        if found.get("status") == "canceled" and params.keys() != {"metadata"}:
            raise Refused(400, "A canceled subscription can only update its cancellation_details and metadata.")
        items = {one["id"]: one for one in found["items"]["data"]}
        for change in params.pop("items", []):
            item = items.get(change.get("id", ""))
            if item is None:
                raise missing("subscription item", change.get("id", ""))
            item.update({name: value for name, value in change.items() if name == "quantity"})
        if "cancel_at_period_end" in params:
            found["cancel_at_period_end"] = params["cancel_at_period_end"]
        found["metadata"] = {**(found.get("metadata") or {}), **params.get("metadata", {})}
        return found

    def cancel_subscription(self, account: str, id_: str, livemode: bool) -> Object:
        """DELETE /v1/subscriptions/…: one that has ended is not found any more."""
        found = self.get("subscription", account, id_, livemode)
        if found.get("status") == "canceled":
            raise missing("subscription", id_)
        if found.get("schedule"):
            self.get("subscription_schedule", account, found["schedule"], livemode)["status"] = "canceled"
        found |= {"status": "canceled", "ended_at": int(time.time()), "canceled_at": int(time.time())}
        return found

    def release_schedule(self, account: str, id_: str, livemode: bool) -> Object:
        """The subscription stays as it is, and is its own master."""
        found = self.get("subscription_schedule", account, id_, livemode)
        if (status := found["status"]) not in ("not_started", "active"):
            raise Refused(400, f"You cannot release a subscription schedule that is in the `{status}` status.")
        managed = self.get("subscription", account, found["subscription"], livemode)
        managed["schedule"] = None
        found |= {"status": "released", "released_subscription": managed["id"], "subscription": None,
                  "released_at": int(time.time())}  # fmt: skip
        return found

    def update_methods(self, account: str, id_: str, params: dict[str, Any], livemode: bool) -> Object:
        """A preference is always stored; it takes effect unless the platform does not let it be overridden."""
        found = self.get("payment_method_configuration", account, id_, livemode)
        for method, change in params.items():
            wanted = change.get("display_preference", {}).get("preference") if isinstance(change, dict) else None
            if wanted is None:
                continue
            held = found.setdefault(method, {"available": False, "display_preference": {"overridable": None}})
            shown = held["display_preference"]
            shown["preference"] = wanted
            if shown.get("overridable") is not False and method not in self.ignored:
                shown["value"] = "off" if wanted == "none" else wanted
                held["available"] = shown["value"] == "on"
        return found


def _is_refundable(dispute: Object) -> bool:
    """Of an inquiry, or of one that was won, the charge can be refunded."""
    return dispute["status"] == "won" or dispute["status"].startswith("warning_")


def _check_step(currency: str, amount: int) -> None:
    """The last of three decimals is 0, and of what Stripe counts in hundredths for old times' sake, both."""
    step = {"isk": 100, "ugx": 100, "bhd": 10, "jod": 10, "kwd": 10, "omr": 10, "tnd": 10}.get(currency, 1)
    if amount % step:
        raise Refused(400, f"Invalid amount: {amount} {currency} is no multiple of {step}", param="amount")

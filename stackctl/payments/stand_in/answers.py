"""What Stripe answers: routes, keys, accounts, idempotency, lists and expansion."""

from __future__ import annotations

import json
import operator
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from stackctl.payments.stand_in.errors import Refused, missing
from stackctl.payments.stand_in.state import Object, State
from stackctl.payments.stand_in.validate import checked

PLATFORM = "acct_platform"
_FILTERS = (
    "payment_intent",
    "charge",
    "subscription",
    "customer",
    "invoice",
    "application",
    "type",
    "status",
    "payment",
)
_REFERENCES = {"latest_charge": "charge", "charge": "charge", "payment_intent": "payment_intent", "invoice": "invoice",
               "subscription": "subscription", "refund": "refund"}  # fmt: skip
# Kind of object: its path, and the SDK's names of the parameters to list and to retrieve it.
_KINDS = {
    "accounts": ("account", "Account"), "payment_intents": ("payment_intent", "PaymentIntent"),
    "charges": ("charge", "Charge"), "refunds": ("refund", "Refund"), "invoices": ("invoice", "Invoice"),
    "subscriptions": ("subscription", "Subscription"), "events": ("event", "Event"), "disputes": ("dispute", "Dispute"),
    "subscription_schedules": ("subscription_schedule", "SubscriptionSchedule"),
    "invoice_payments": ("invoice_payment", "InvoicePayment"), "customers": ("customer", "Customer"),
    "credit_notes": ("credit_note", "CreditNote"),
    "payment_method_configurations": ("payment_method_configuration", "PaymentMethodConfiguration"),
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """One as it came; the names of headers are in small letters."""

    method: str
    path: str
    query: str
    body: str
    headers: dict[str, str]

    @property
    def params(self) -> dict[str, Any]:
        given = self.body if self.method == "POST" else self.query
        return nested(parse_qsl(given, keep_blank_values=True))


def nested(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """`items[0][quantity]=2` as `{"items": {"0": {"quantity": "2"}}}`; `expand[]=x` counts on."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        first, *more = re.findall(r"[^\[\]]+|(?<=\[)(?=\])", name)
        at = found
        keys = [first, *more]
        for place, key in enumerate(keys):
            key = key or str(len(at))
            if place == len(keys) - 1:
                at[key] = value
            else:
                at = at.setdefault(key, {})
    return found


@dataclass
class _Kept:
    """The answer to an idempotency key; None while the request is under way."""

    request: tuple[str, str, str]
    answer: tuple[int, Object] | None = None


@dataclass
class StandIn:
    """`keys`: those that are known, each `good`, `restricted` (to reading) or `revoked`."""

    state: State = field(default_factory=State)
    keys: dict[str, str] = field(default_factory=dict)
    _kept: dict[tuple[str, str], _Kept] = field(default_factory=dict)

    def answer(self, request: Request, instead: tuple[int, Object] | None = None) -> tuple[int, Object, dict[str, str]]:
        """Do what is asked, once for each idempotency key: status, body and further headers. Raises Refused.

        `instead`: what is answered under an idempotency key, though it was done.
        """
        method, path, params = request.method, request.path, request.params
        account, livemode = self._allowed(method, request.headers)
        key = request.headers.get("idempotency-key") if method == "POST" else None
        if key is None:
            status, found = self._done(method, path, params, account, livemode)
            return status, found, {}
        asked = (method, path, json.dumps(params, sort_keys=True))
        place = (f"{account} live" if livemode else account), key
        with self.state.lock:
            kept = self._kept.get(place)
            if kept is None:
                kept = self._kept[place] = _Kept(asked)
            elif kept.request != asked:
                raise Refused(
                    400, "Keys for idempotent requests can only be used with the same parameters they were first used "
                    "with.", type_="idempotency_error",
                )  # fmt: skip
            elif kept.answer is None:
                raise Refused(409, "There is another in-progress request using this Idempotent Key",
                              code="idempotency_key_in_use")  # fmt: skip
            else:
                return kept.answer[0], kept.answer[1], {"Idempotent-Replayed": "true"}
        try:
            kept.answer = self._done(method, path, params, account, livemode)
        except Refused as refused:
            # What was refused before it began may be sent again under the same key.
            with self.state.lock:
                self._kept.pop(place)
            raise refused
        if instead is not None:
            kept.answer = instead
        return kept.answer[0], kept.answer[1], {}

    def to_document(self) -> dict[str, Any]:
        """All that it holds, as JSON."""
        kept = [[*place, one.request, one.answer] for place, one in self._kept.items() if one.answer is not None]
        return {"objects": self.state.to_document(), "kept": kept}

    def restore(self, document: dict[str, Any]) -> None:
        """Hold what `to_document` gave, and nothing else."""
        self.state.restore(document["objects"])
        self._kept = {
            (account, key): _Kept(tuple(request), tuple(answer)) for account, key, request, answer in document["kept"]
        }

    def _allowed(self, method: str, headers: dict[str, str]) -> tuple[str, bool]:
        given = headers.get("authorization", "").removeprefix("Bearer ")
        status = self.keys.get(given)
        if status is None or status == "revoked":
            what = "Expired API Key provided" if status else "Invalid API Key provided"
            raise Refused(401, f"{what}: {given[:8]}****", code="api_key_expired" if status else None)
        if status == "restricted" and method != "GET":
            raise Refused(403, "The provided key does not have the required permissions for this endpoint.")
        account = headers.get("stripe-account", "")
        if account and not self.state.has_account(account):
            raise Refused(403, f"The provided key does not have access to account '{account}'", code="account_invalid")
        return account, given.startswith("sk_live")

    def _done(self, method: str, path: str, raw: dict[str, Any], account: str, livemode: bool) -> tuple[int, Object]:
        with self.state.lock:
            found = self._routed(method, path, raw, account, livemode)
            expanded = self._expanded(found, raw.get("expand"), account, livemode)
            return 200, json.loads(json.dumps(expanded))

    def _routed(self, method: str, path: str, raw: dict[str, Any], account: str, livemode: bool) -> Object:
        state = self.state
        match method, path.split("/")[2:]:
            case "GET", ["account"]:
                return (
                    state.get("account", "", account, livemode) if account else state.all("account", "", livemode)[-1]
                )
            case "GET", ["accounts", id_]:
                return state.get("account", "", id_, livemode)
            case "GET", ["balance"]:
                return {"object": "balance", "livemode": livemode, "available": [], "pending": []}
            case "GET", [kind] if kind in _KINDS:
                name, params = _KINDS[kind]
                return self._listed(path, state.all(name, account, livemode), checked(f"{params}ListParams", raw))
            case "GET", ["credit_notes", "preview"]:
                return state.credit_note(account, checked("CreditNotePreviewParams", raw), livemode, preview=True)
            case "GET", [kind, id_] if kind in _KINDS and id_:
                name, params = _KINDS[kind]
                checked(f"{params}RetrieveParams", raw)
                return state.get(name, account, id_, livemode)
            case "POST", ["credit_notes"]:
                return state.credit_note(account, checked("CreditNoteCreateParams", raw), livemode)
            case "POST", ["refunds"]:
                return state.refund(account, checked("RefundCreateParams", raw), livemode)
            case "POST", ["subscriptions", id_]:
                return state.update_subscription(account, id_, checked("SubscriptionUpdateParams", raw), livemode)
            case "DELETE", ["subscriptions", id_]:
                checked("SubscriptionCancelParams", raw)
                return state.cancel_subscription(account, id_, livemode)
            case "POST", ["subscription_schedules", id_, "release"]:
                checked("SubscriptionScheduleReleaseParams", raw)
                return state.release_schedule(account, id_, livemode)
            case "POST", ["payment_method_configurations", id_]:
                params = checked("PaymentMethodConfigurationUpdateParams", raw)
                return state.update_methods(account, id_, params, livemode)
            case _:
                raise Refused(404, f"Unrecognized request URL ({method}: {path}).")

    def _listed(self, path: str, objects: list[Object], params: dict[str, Any]) -> Object:
        for name in _FILTERS:
            if params.get(name) not in (None, "all"):
                objects = [one for one in objects if _filtered_by(one, name) == params[name]]
        for bound, value in (created if isinstance(created := params.get("created"), dict) else {}).items():
            compared = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}[bound]
            objects = [one for one in objects if compared(one["created"], value)]
        ids = [one["id"] for one in objects]
        start, end = params.get("starting_after"), params.get("ending_before")
        for cursor in (start, end):
            if cursor is not None and cursor not in ids:
                raise missing("object", cursor)
        limit = params.get("limit", 10)
        if not 1 <= limit <= 100:
            raise Refused(400, "Invalid integer: limit is from 1 to 100", param="limit")
        if end is not None:
            before = objects[: ids.index(end)]
            return {"object": "list", "url": path, "data": before[-limit:], "has_more": len(before) > limit}
        behind = objects[ids.index(start) + 1 :] if start is not None else objects
        return {"object": "list", "url": path, "data": behind[:limit], "has_more": len(behind) > limit}

    def _expanded(self, found: Object, expand: Any, account: str, livemode: bool) -> Object:
        result = json.loads(json.dumps(found))
        for path in expand.values() if isinstance(expand, dict) else expand or ():
            self._expand(result, path.split("."), account, livemode)
        return result

    def _expand(self, at: Any, names: list[str], account: str, livemode: bool) -> None:
        if isinstance(at, list):
            for one in at:
                self._expand(one, names, account, livemode)
            return
        name, *rest = names
        if not isinstance(at, dict) or name not in at:
            raise Refused(400, f"This property cannot be expanded ({name}).", param="expand")
        if isinstance(at[name], str) and name in _REFERENCES:
            at[name] = json.loads(json.dumps(self.state.get(_REFERENCES[name], account, at[name], livemode)))
        if rest:
            self._expand(at[name], rest, account, livemode)


def _filtered_by(one: Object, name: str) -> Any:
    """What a list is narrowed by: an invoice has its subscription in `parent`."""
    if one["object"] == "invoice" and name == "subscription":
        return ((one.get("parent") or {}).get("subscription_details") or {}).get("subscription")
    return one.get(name)

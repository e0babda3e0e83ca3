"""Payment methods that a project's checkout can offer, and a plan for switching them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackctl.core.errors import StateError, UsageError
from stackctl.core.yaml_reader import Reader, read_text, to_scalar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from stackctl.payments.gateway import Gateway

CATEGORIES = {
    "cards": "Cards", "wallets": "Wallets", "bnpl": "Buy now, pay later", "realtime": "Real-time payments",
    "bank_debits": "Bank debits", "bank_transfers": "Bank transfers", "vouchers": "Vouchers",
}  # fmt: skip
SHOWN_CONFIGURATIONS = 5  # in a hint


@dataclass(frozen=True)
class Method:
    """One that Stripe knows by `id`. `requires`: what must be on before it can be."""

    id: str
    name: str
    category: str
    requires: tuple[str, ...] = ()


METHODS = {
    method.id: method
    for method in (
        Method("card", "Credit/Debit Card", "cards"),
        Method("cartes_bancaires", "Cartes Bancaires", "cards"),
        Method("apple_pay", "Apple Pay", "wallets", ("card",)),
        Method("google_pay", "Google Pay", "wallets", ("card",)),
        Method("link", "Link", "wallets"),
        Method("amazon_pay", "Amazon Pay", "wallets"),
        Method("cashapp", "Cash App", "wallets"),
        Method("klarna", "Klarna", "bnpl"),
        Method("affirm", "Affirm", "bnpl"),
        Method("afterpay_clearpay", "Afterpay / Clearpay", "bnpl"),
        Method("zip", "Zip", "bnpl"),
        Method("ideal", "iDEAL", "realtime"),
        Method("bancontact", "Bancontact", "realtime"),
        Method("eps", "EPS", "realtime"),
        Method("p24", "Przelewy24", "realtime"),
        Method("blik", "BLIK", "realtime"),
        Method("alipay", "Alipay", "realtime"),
        Method("wechat_pay", "WeChat Pay", "realtime"),
        Method("sepa_debit", "SEPA Direct Debit", "bank_debits"),
        Method("bacs_debit", "Bacs Direct Debit", "bank_debits"),
        Method("acss_debit", "ACSS Debit", "bank_debits"),
        Method("us_bank_account", "US Bank Account", "bank_transfers"),
        Method("multibanco", "Multibanco", "vouchers"),
        Method("customer_balance", "Customer Balance", "vouchers"),
    )
}


@dataclass(frozen=True)
class OfferedMethod:
    """A method as a configuration has it. `enabled`: what checkout shows, not what was asked for."""

    method: Method
    enabled: bool
    available: bool
    overridable: bool


@dataclass(frozen=True)
class Configuration:
    account: str
    id: str
    methods: tuple[OfferedMethod, ...]

    def find_method(self, id_: str) -> OfferedMethod | None:
        return next((one for one in self.methods if one.method.id == id_), None)


@dataclass(frozen=True)
class Plan:
    """`changes`: method and whether it is to be on; `blocked`: method and why it can't be switched."""

    changes: tuple[tuple[str, bool], ...]
    blocked: tuple[tuple[str, str], ...]


def read_configuration(gateway: Gateway, account: str, named: str | None = None) -> Configuration:
    """The active configuration that the platform steers, else the default one; or the one that is `named` by its id.

    Raises StateError `no-configuration`, `several-configurations`, UsageError `unknown-configuration`.
    """
    found = gateway.list_configurations()
    # Checkout does not use one that was switched off.
    active = [one for one in found if one.get("active") is not False]
    if named is not None:
        chosen = [one for one in active if one["id"] == named]
        if not chosen:
            known = ", ".join(str(one["id"]) for one in active[:SHOWN_CONFIGURATIONS]) or "none"
            inactive = any(one["id"] == named for one in found)
            raise UsageError(
                f"the payment method configuration {named} is not active"
                if inactive
                else f"account {account} has no payment method configuration {named}",
                code="unknown-configuration",
                hint=f"active ones: {known}",
            )
    else:
        steered = [one for one in active if one.get("application") or one.get("parent")]
        chosen = steered or [one for one in active if one.get("is_default")]
    if not chosen:
        inactive = sum(one.get("active") is False for one in found)
        raise StateError(
            f"account {account} has no payment method configuration of the platform, and no default one"
            + (f", that is active ({inactive} are not)" if inactive else ""),
            code="no-configuration",
            hint="open the account's payment methods in Stripe's dashboard once, which makes one",
        )
    if len(chosen) > 1:
        listed = [f"  {one['id']} ({one.get('name') or 'without a name'})" for one in chosen[:SHOWN_CONFIGURATIONS]]
        raise StateError(
            [f"account {account} has {len(chosen)} active payment method configurations of the platform:", *listed],
            code="several-configurations",
            hint="say which with --configuration",
            details={"configurations": [str(one["id"]) for one in chosen]},
        )
    return _configuration(account, chosen[0])


def reread_configuration(gateway: Gateway, configuration: Configuration) -> Configuration:
    return _configuration(configuration.account, gateway.get_configuration(configuration.id))


def _configuration(account: str, found: Mapping[str, Any]) -> Configuration:
    methods: list[OfferedMethod] = []
    for method in METHODS.values():
        held = found.get(method.id)
        if isinstance(held, dict):
            shown = held.get("display_preference") or {}
            methods.append(
                OfferedMethod(
                    method,
                    enabled=shown.get("value") == "on",
                    available=bool(held.get("available")),
                    overridable=shown.get("overridable") is not False,
                )
            )
    return Configuration(account, found["id"], tuple(methods))


def plan_changes(configuration: Configuration, states: Mapping[str, bool]) -> Plan:
    """What has to change, and what can't: each method must have what it requires once all is done."""
    changes: dict[str, bool] = {}
    blocked: dict[str, str] = {}
    for id_, on in states.items():
        offered = configuration.find_method(id_)
        if offered is None:
            if on:  # what is not offered is off
                blocked[id_] = "Stripe does not offer it to this account"
        elif offered.enabled != on:
            changes[id_] = on
            if not offered.overridable:
                blocked[id_] = "the platform's configuration does not let the account override it"
    after = {one.method.id: one.enabled for one in configuration.methods} | {
        id_: on for id_, on in changes.items() if id_ not in blocked
    }
    for id_, on in changes.items():
        if id_ in blocked:
            continue
        if on:
            lacking = [other for other in METHODS[id_].requires if not after.get(other)]
            if lacking:
                blocked[id_] = f"it requires {' and '.join(lacking)}, which would be off"
        else:
            leaning = [one.id for one in METHODS.values() if id_ in one.requires and after.get(one.id)]
            if leaning:
                blocked[id_] = f"{' and '.join(leaning)} would be on, which can't be without it"
    return Plan(tuple((id_, on) for id_, on in changes.items() if id_ not in blocked), tuple(blocked.items()))


def apply_plan(gateway: Gateway, configuration: Configuration, plan: Plan) -> Configuration:
    """Ask for the changes, all in one request, and read what really came of it.

    Raises StateError `blocked` where anything is, and then changes nothing.
    """
    if plan.blocked:
        listed = "; ".join(f"{id_}: {why}" for id_, why in plan.blocked)
        raise StateError(f"nothing was changed: {listed}", code="blocked", hint="change what is wanted, and try again",
                         details={"blocked": [{"id": id_, "why": why} for id_, why in plan.blocked]})  # fmt: skip
    if not plan.changes:
        return configuration
    gateway.set_preferences(configuration.id, dict(plan.changes))
    return reread_configuration(gateway, configuration)


# -- what is wanted, from a file or the command line


def parse_state(value: object) -> bool | None:
    """What YAML 1.1 takes for on and off, be it quoted, as writers that know YAML 1.2 have it; else None."""
    if isinstance(value, bool):
        return value
    return {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}.get(
        value.strip().lower() if isinstance(value, str) else ""
    )


def parse_arguments(arguments: Sequence[str]) -> dict[str, bool]:
    """`card=on`. Raises UsageError."""
    found: dict[str, bool] = {}
    for argument in arguments:
        id_, _, text = argument.partition("=")
        state = parse_state(text)
        if state is None:
            raise UsageError(
                f"{argument!r} is not METHOD=on or METHOD=off", code="usage", hint="e.g. card=on klarna=off"
            )
        if id_ not in METHODS:
            raise UsageError(f"there is no payment method {id_}", code="unknown-payment-method", hint=_suggest(id_))
        if found.setdefault(id_, state) != state:
            raise UsageError(f"{id_} can't be both on and off", code="usage")
    return found


def load_states(path: Path) -> dict[str, bool]:
    """`payment_methods: {card: on}`. Raises ConfigError (`plan-unreadable`, `invalid-plan`)."""
    text = read_text(path, code="plan-unreadable", hint="`stackctl payment-methods export` writes one")
    reader = Reader()
    root = reader.compose(text)
    found: dict[str, bool] = {}
    top = reader.read_mapping(root, "the file", ("payment_methods",)) if root is not None else {}
    methods = top.get("payment_methods")
    if methods is None and not reader.mistakes:
        reader.mistakes.append((1, "the file has no payment_methods"))
    for key, value in reader.read_pairs(methods, "payment_methods") if methods is not None else ():
        if key.value not in METHODS:
            reader.add_mistake(key, f"there is no payment method {key.value}; {_suggest(str(key.value))}")
        elif (state := parse_state(to_scalar(value))) is None:
            reader.add_mistake(value, f"{key.value} is on or off")
        else:
            found[str(key.value)] = state
    if reader.mistakes:
        raise reader.to_error(str(path), code="invalid-plan", hint="e.g. payment_methods: {card: on, klarna: off}")
    return found


def format_configuration(configuration: Configuration) -> str:
    """The state as a file that `apply` takes."""
    lines = ["payment_methods:"]
    for category, title in CATEGORIES.items():
        own = [one for one in configuration.methods if one.method.category == category]
        if own:
            lines.append(f"  # {title}")
            lines += [f"  {one.method.id}: {'on' if one.enabled else 'off'}" for one in own]
    return "\n".join(lines) + "\n"


def _suggest(id_: str) -> str:
    near = difflib.get_close_matches(id_, METHODS, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {_listed(METHODS)}"


def _listed(ids: Iterable[str]) -> str:
    return ", ".join(ids)

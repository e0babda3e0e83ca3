"""stackctl payment-methods, against a Stripe that keeps what it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.backend import MINE, OTHER
from tests.shop import ACCOUNT
from tests.stripe_fake import Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.shop import Shop


def shown(on: bool, overridable: bool | None = True) -> dict[str, Any]:
    value = "on" if on else "off"
    return {"available": on, "display_preference": {"overridable": overridable, "preference": value, "value": value}}


@pytest.fixture
def stripe() -> Iterator[Running]:
    with running() as fake:
        fake.state.add("account", id=ACCOUNT)
        # The platform's is behind more than a page of others.
        fake.state.add(
            "payment_method_configuration", ACCOUNT, id="pmc_platform", parent="pmc_parent", is_default=False,
            livemode=False, card=shown(True), apple_pay=shown(False), klarna=shown(True), link=shown(True, False),
        )  # fmt: skip
        for number in range(105):
            fake.state.add("payment_method_configuration", ACCOUNT, id=f"pmc_{number}", parent=None, application=None,
                           is_default=number == 50, livemode=False)  # fmt: skip
        yield fake


def methods(shop: Shop, *arguments: str) -> Any:
    return shop.run("payment-methods", *arguments, "--tenancy", str(MINE))


def updates(stripe: Running) -> list[dict[str, Any]]:
    return [call.params for call in stripe.calls("POST")]


def state(stripe: Running, id_: str) -> str:
    found = stripe.state.get("payment_method_configuration", ACCOUNT, "pmc_platform", False)
    return found[id_]["display_preference"]["value"]


@pytest.mark.quick
def test_the_platforms_configuration_is_found_on_any_page(shop: Shop, stripe: Running) -> None:
    document = methods(shop, "list", "--json").json
    assert (document["account"], document["config_id"]) == (ACCOUNT, "pmc_platform")
    found = {one["id"]: one for one in document["methods"]}
    assert found["apple_pay"] == {
        "id": "apple_pay", "name": "Apple Pay", "category": "wallets", "enabled": False, "available": False,
        "overridable": True, "requires": ["card"],
    }  # fmt: skip
    assert found["link"]["overridable"] is False
    assert "Buy now, pay later" in methods(shop, "list").stdout


def test_what_is_switched_is_read_again(shop: Shop, stripe: Running) -> None:
    assert methods(shop, "set", "apple_pay=on", "klarna=off").code == 5
    dry = methods(shop, "set", "apple_pay=on", "klarna=off", "card=on", "--dry-run", "--json").json
    assert dry == {
        "changes": [{"id": "apple_pay", "from": "off", "to": "on"}, {"id": "klarna", "from": "on", "to": "off"}],
        "blocked": [],
        "applied": False,
    }
    assert updates(stripe) == []
    result = methods(shop, "set", "apple_pay=on", "klarna=off", "card=on", "--yes", "--json")
    assert (result.code, result.json["applied"], result.json["not_in_effect"]) == (0, True, [])
    assert len(updates(stripe)) == 1 and set(updates(stripe)[0]) == {"apple_pay", "klarna"}
    assert (state(stripe, "apple_pay"), state(stripe, "klarna")) == ("on", "off")
    again = methods(shop, "set", "apple_pay=on", "klarna=off")
    assert (again.code, again.stdout) == (0, "nothing to change\n")
    assert len(updates(stripe)) == 1


def test_a_file_is_planned_applied_and_written(shop: Shop, stripe: Running, tmp_path: Path) -> None:
    exported = methods(shop, "export")
    (tmp_path / "methods.yaml").write_text(exported.stdout)
    assert methods(shop, "plan", "methods.yaml").stdout == "nothing to change\n"
    (tmp_path / "methods.yaml").write_text("payment_methods: {card: off, apple_pay: false, klarna: no}\n")
    assert methods(shop, "plan", "methods.yaml").stdout == "card: on -> off\nklarna: on -> off\n"
    assert methods(shop, "apply", "methods.yaml", "--yes").code == 0
    assert (state(stripe, "card"), state(stripe, "klarna")) == ("off", "off")
    off = {"display_preference": {"preference": "off"}}
    assert updates(stripe) == [{"card": off, "klarna": off}]


def test_on_and_off_as_people_and_programs_write_them(shop: Shop, stripe: Running, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("payment_methods: {card: 'on', apple_pay: \"Yes\", klarna: OFF, link: true}\n")
    assert methods(shop, "plan", "m.yaml").stdout == "apple_pay: off -> on\nklarna: on -> off\n"
    result = methods(shop, "set", "card=ON", "apple_pay=yes", "klarna=False", "--dry-run")
    assert result.stdout == "apple_pay: off -> on\nklarna: on -> off\nnothing was changed\n"
    # What Stripe does not offer to the account is off.
    del stripe.state.get("payment_method_configuration", ACCOUNT, "pmc_platform", False)["blik"]
    assert methods(shop, "set", "blik=off").stdout == "nothing to change\n"
    assert methods(shop, "set", "blik=on", "--yes", "--json").json["error"]["code"] == "blocked"


def test_a_configuration_that_no_checkout_uses_is_not_taken(shop: Shop, stripe: Running) -> None:
    state_, add = stripe.state, stripe.state.add
    platforms = state_.get("payment_method_configuration", ACCOUNT, "pmc_platform", False)
    platforms["active"] = False
    assert methods(shop, "list", "--json").json["config_id"] == "pmc_50"  # the default one
    for name in ("Web", "App"):
        add("payment_method_configuration", ACCOUNT, id=f"pmc_{name}", name=name, application="ca_1", parent=None,
            is_default=False, livemode=False, klarna=shown(True))  # fmt: skip
    several = methods(shop, "set", "klarna=off", "--yes", "--json")
    assert (several.code, several.json["error"]["code"]) == (5, "several-configurations")
    assert several.json["error"]["message"].splitlines()[1:] == ["  pmc_App (App)", "  pmc_Web (Web)"]
    assert updates(stripe) == []
    named = ("set", "klarna=off", "--yes", "--json", "--configuration")
    assert methods(shop, *named, "pmc_App").code == 0
    assert [call.path for call in stripe.calls("POST")] == ["/v1/payment_method_configurations/pmc_App"]
    for id_ in ("pmc_platform", "pmc_nowhere"):
        refused = methods(shop, *named, id_)
        assert (refused.code, refused.json["error"]["code"]) == (2, "unknown-configuration"), id_


@pytest.mark.parametrize(
    ("wanted", "blocked"),
    [
        ({"link": "off"}, ["link"]),
        ({"card": "off", "apple_pay": "on"}, ["card", "apple_pay"]),
        ({"card": "off", "google_pay": "on", "klarna": "off"}, ["card", "google_pay"]),
        ({"zip": "on", "link": "off"}, ["link"]),
    ],
)
def test_nothing_is_done_where_something_stands_in_the_way(
    shop: Shop, stripe: Running, wanted: dict[str, str], blocked: list[str]
) -> None:
    arguments = [f"{id_}={value}" for id_, value in wanted.items()]
    result = methods(shop, "set", *arguments, "--yes", "--json")
    assert (result.code, result.json["error"]["code"]) == (5, "blocked")
    assert sorted(one["id"] for one in result.json["error"]["details"]["blocked"]) == sorted(blocked)
    assert updates(stripe) == []


@pytest.mark.parametrize(
    ("arguments", "text", "code", "says"),
    [
        (("set", "klrana=on"), "", 2, "did you mean klarna?"),
        (("set", "klarna=maybe"), "", 2, "is not METHOD=on"),
        (("set", "klarna"), "", 2, "is not METHOD=on"),
        (("set", "klarna=on", "klarna=off"), "", 2, "both on and off"),
        (("plan", "m.yaml"), "", 3, "has no payment_methods"),
        (("plan", "m.yaml"), "payment_methods: {klarna: maybe}", 3, "klarna is on or off"),
        (("plan", "m.yaml"), "payment_methods: {klrana: on}", 3, "did you mean klarna?"),
        (("plan", "m.yaml"), "payment_methods: {card: on, card: off}", 3, "card is there twice"),
        (("plan", "m.yaml"), "payment_methods: [card]", 3, "a mapping"),
        (("plan", "m.yaml"), "payment_methods: {card: on", 3, "m.yaml:"),
        (("apply", "nowhere.yaml"), "", 3, "can't be read"),
    ],
)
def test_bad_input_reaches_nobody(
    shop: Shop, stripe: Running, tmp_path: Path, arguments: tuple[str, ...], text: str, code: int, says: str
) -> None:
    (tmp_path / "m.yaml").write_text(text)
    result = methods(shop, *arguments)
    assert (result.code, says in result.stderr + (result.stdout)) == (code, True), result
    assert stripe.calls() == []


@pytest.mark.parametrize(
    ("fault", "code", "error"),
    [("429", 4, "stripe-busy"), ("500-before", 4, "stripe-failed"), ("html-502", 4, "stripe-failed"),
     ("drop-before", 4, "stripe-unreachable")],
)  # fmt: skip
def test_what_goes_wrong_when_reading(shop: Shop, stripe: Running, fault: Any, code: int, error: str) -> None:
    for _ in range(3):  # the SDK tries again
        stripe.fault(fault, method="GET")
    result = methods(shop, "list", "--json")
    assert (result.code, result.json["error"]["code"]) == (code, error), result


def test_a_change_that_is_not_answered_is_unknown_unless_trying_again_helps(shop: Shop, stripe: Running) -> None:
    stripe.fault("drop-after", method="POST")
    assert methods(shop, "set", "klarna=off", "--yes").code == 0
    assert len({call.key for call in stripe.calls("POST")}) == 1
    for _ in range(3):
        stripe.fault("drop-before", method="POST")
    result = methods(shop, "set", "klarna=on", "--yes", "--json")
    assert (result.code, result.json["error"]["code"]) == (6, "stripe-unanswered")


def test_keys_and_accounts(shop: Shop, stripe: Running, migrated_db: str) -> None:
    stripe.fake.keys["sk_test_old"] = "revoked"
    for key, code in (("sk_test_old", 4), ("sk_test_secretsecret", 4)):
        result = methods(shop, "list", "--stripe-api-key", key)
        assert result.code == code
        assert key not in result.stdout + result.stderr
    assert shop.run("payment-methods", "list").code == 2  # several tenancies
    with psycopg.connect(migrated_db) as conn:
        conn.execute('UPDATE "Project" SET "stripeAccountId" = NULL')
    result = shop.run("payment-methods", "list", "--tenancy", str(OTHER), "--json")
    assert (result.code, result.json["error"]["code"]) == (5, "no-account")


def test_what_stripe_ignores_is_said(shop: Shop, stripe: Running) -> None:
    """The platform has locked it between the reading and the change."""
    stripe.state.ignored.add("klarna")
    result = methods(shop, "set", "apple_pay=on", "klarna=off", "--yes", "--json")
    assert (result.code, result.json["applied"], result.json["not_in_effect"]) == (1, True, ["klarna"])
    assert state(stripe, "apple_pay") == "on"
    again = methods(shop, "set", "apple_pay=off", "klarna=off", "--yes")
    assert (again.code, again.stdout) == (1, "apple_pay: now off\nklarna: Stripe keeps it as it was\n")

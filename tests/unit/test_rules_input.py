"""What people put into rules, suites and sample files that is nearly right: one clear error each, and no decision in
silence."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from stackctl.config.file import load_config
from stackctl.core.errors import ConfigError
from stackctl.core.json_reader import load_json
from stackctl.core.yaml_reader import choose_loader
from stackctl.rules import sample_users
from stackctl.rules.backend.differences import check_backend
from stackctl.rules.check import check_rules
from stackctl.rules.rules_file import load_rules, parse_rules
from stackctl.rules.sample_users import load_users
from stackctl.rules.suites import load_suite

NINES = "9" * 5000


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("u.jsonl", '{"email": "\\ud800", "auth_method": "otp"}', "half a character"),
        ("u.jsonl", '{"email": "a", "email": "b", "auth_method": "otp"}', "the key 'email' is there twice"),
        ("u.jsonl", f'{{"email": "a", "risk_scores": {{"bot": {NINES}}}}}', "a number of 5,000 digits"),
        ("u.jsonl", '{"email": "a", "risk_scores": {"bot": NaN}}', "NaN is not a value of JSON"),
        ("u.jsonl", "[" * 100_000, "nested too deeply"),
        ("u.jsonl", "5", "a user is one object"),
        ("u.csv", f"a,otp,{NINES}", "(5,000 characters)' is not a whole number from 0 to 100"),
        ("u.yaml", "- {email: a, email: b}", "email is there twice"),
        ("u.yaml", f"- {{email: a, risk_scores: {{bot: {NINES}}}}}", "a value can't be read"),
        ("u.yaml", '- {email: "\\ud800"}', "half a character"),
        ("u.yaml", "- {email: a, country_code: NO}", "country_code is text: put it in quotes"),
        ("u.yaml", "- {email: !ours a}", "a value can't be read"),
        ("u.yaml", "- 5", "a user is one object"),
    ],
)
def test_a_user_that_can_not_be_read_is_named_by_its_row(tmp_path: Path, name: str, row: str, said: str) -> None:
    good = {
        "u.jsonl": '{"email": "x\\ud83d\\ude00", "auth_method": "otp"}\n',
        "u.csv": "email,auth_method,bot\n",
        "u.yaml": "- {email: x, auth_method: otp}\n",
    }
    (tmp_path / name).write_text(good[name] + row + "\n")
    with pytest.raises(ConfigError) as caught:
        list(load_users(tmp_path / name))
    assert (caught.value.details["row"], said in caught.value.message) == (2, True), caught.value.message


def test_json_of_users_is_read_as_json(tmp_path: Path) -> None:
    (tmp_path / "u.json").write_text('{"users": [{"email": "\\ud83d\\ude00@x", "auth_method": "otp"}]}')
    assert [one.context.email for one in load_users(tmp_path / "u.json")] == ["😀@x"]
    with pytest.raises(ValueError, match="too large"):
        load_json("[1e999]")


@pytest.mark.parametrize("value", ["2024-13-45", "!!bool maybe", '!!int ""', "!ours 5", "!!timestamp x", NINES, "[1]"])
def test_a_value_that_its_tag_does_not_fit_is_a_mistake(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rules(f"rules:\n  a: {{enabled: {value},\n    priority: {value}, action: {{type: log}}}}\n", "r")
    assert (
        caught.value.message == "r:2: enabled of a is true or false\nr:3: priority of a is a whole number of at least 0"
    )


def test_json_spells_a_character_in_two_halves() -> None:
    text = json.dumps({"rules": {"a": {"display_name": "😀", "action": {"type": "log"}}}})
    assert parse_rules(text, "").rules[0].display_name == "😀"
    with pytest.raises(ConfigError, match="half a character"):
        parse_rules(text.replace("\\ude00", ""), "")


def test_merge_keys_and_anchors_are_read() -> None:
    text = (
        "rules:\n"
        "  a: &a {priority: &p 5, condition: x, action: &log {type: log, message: m}}\n"
        "  b: {<<: *a, priority: 6}\n"
        "  c: {<<: [{condition: y}, *a], priority: *p, action: {<<: *log, type: allow}}\n"
    )
    found = {
        one.id: (one.priority, one.condition, one.action.type, one.action.message)
        for one in parse_rules(text, "").rules
    }
    assert found == {"a": (5, "x", "log", "m"), "b": (6, "x", "log", "m"), "c": (5, "y", "allow", "m")}
    with pytest.raises(ConfigError, match="2: rule a has no key 5"):
        parse_rules("rules:\n  a: {<<: 5, action: {type: log}}\n", "")


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("{email: a, email: b}", "email is there twice"),
        ("5", "a user is one object"),
        ("{email: !x a}", "can't be read"),
    ],
)
def test_a_user_of_a_suite_too(tmp_path: Path, user: str, said: str) -> None:
    path = tmp_path / "a.rules-test.yaml"
    path.write_text(f"rules: r.yaml\ntests:\n  - {{name: t, user: {user}}}\n")
    with pytest.raises(ConfigError, match=f"3: t: .*{said}"):
        load_suite(path)


def test_python_warns_of_nothing() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found: list[Any] = list(check_backend('email.matches("[[a]") || email.matches("[a--b]")'))
    assert (caught, found is not None) == ([], True)


@pytest.mark.parametrize("condition", [f'int("{NINES}") > 3', f'double("{NINES}") > 3.0', f"riskScores.bot > {NINES}"])
def test_a_number_of_thousands_of_digits_in_a_condition_is_no_bug(condition: str) -> None:
    text = json.dumps({"rules": {"a": {"condition": condition, "action": {"type": "log"}}}})
    assert check_rules(parse_rules(text, ""))


def test_no_file_is_read_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that never ends, and many collections beside each other, which are not deep."""
    for read in (load_rules, load_suite, load_config):
        with pytest.raises(ConfigError) as caught:
            read(Path("/dev/zero"))
        assert " MB" in caught.value.message
    (tmp_path / "a.csv").symlink_to("/dev/zero")
    monkeypatch.setattr(sample_users, "_MAX_BYTES", 1 << 20)
    with pytest.raises(ConfigError, match="larger than 1 MB"):
        list(load_users(tmp_path / "a.csv"))
    wide, deep = "[" + "{a: [1]}, " * 5_000 + "]", "[" * 2_000 + "]" * 2_000
    assert [choose_loader(text) for text in (wide, deep)] == [yaml.CSafeLoader, yaml.SafeLoader]

"""Lists of a rules file: read, used by name, checked, and written out for the backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stackctl.core.errors import ConfigError
from stackctl.rules.cel.trace import trace_condition
from stackctl.rules.check import check_rules
from stackctl.rules.decide import Judge
from stackctl.rules.lists import MAX_ENTRIES, break_lists, expand_lists, expand_rules, restore_lists
from stackctl.rules.model import Context
from stackctl.rules.rules_file import load_rules
from tests.growth import LINEAR, growth

if TYPE_CHECKING:
    from pathlib import Path

    from stackctl.rules.model import RuleSet

DOMAINS = (
    b"\xef\xbb\xbf# disposable mail\r\n\r\nmailinator.com   # often\r\n  tempmail.com\r\nmailinator.com\r\na#b.example"
)


def load(folder: Path, condition: str, domains: bytes = DOMAINS, action: str = "reject") -> RuleSet:
    (folder / "domains.txt").write_bytes(domains)
    (folder / "rules.yaml").write_text(
        f"lists: {{disposable: ./domains.txt}}\nrules:\n  a: {{condition: '{condition}', action: {{type: {action}}}}}\n"
    )
    return load_rules(folder / "rules.yaml")


def find(rules: RuleSet) -> dict[str, tuple[str, str]]:
    return {one.code: (one.severity, one.message) for one in check_rules(rules)}


def judge(rules: RuleSet, email: str) -> str:
    return Judge(rules).decide(Context(email)).evaluations[0].status


def test_entries_are_the_lines_without_comments(tmp_path: Path) -> None:
    rules = load(tmp_path, "emailDomain in disposable")
    assert rules.rules[0].lists["disposable"].entries == {"mailinator.com": 3, "tempmail.com": 4, "a#b.example": 6}


@pytest.mark.parametrize(
    "condition",
    [
        "emailDomain in disposable",
        "!(emailDomain in disposable) ? false : true",
        '(emailDomain in disposable) && int("3") > 2',  # the interpreter's
        'email in disposable || emailDomain in disposable || "x" in disposable',
    ],
)
def test_a_condition_uses_a_list_by_name(tmp_path: Path, condition: str) -> None:
    rules = load(tmp_path, condition)
    found = [judge(rules, f"x@{domain}") for domain in ("mailinator.com", "tempmail.com", "a.mailinator.com", "x.io")]
    assert found == ["matched", "matched", "not_matched", "not_matched"]
    seen = [part.fields for part in trace_condition(rules.rules[0], Context("x@x.io"))]
    assert all("disposable" not in fields for fields in seen)


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("emailDomain in dispsable", "unknown-field"),
        ("disposable == [emailDomain]", "type"),
        ("size(disposable) > 1", "type"),
        ("riskScores.bot in disposable", "type"),
    ],
)
def test_a_list_stands_behind_in_alone(tmp_path: Path, condition: str, code: str) -> None:
    rules = load(tmp_path, condition)
    assert find(rules)[code][0] == "error"
    assert judge(rules, "x@x.io") in ("error", "not_matched")


def test_check_names_entries_that_cannot_match_and_subdomains(tmp_path: Path) -> None:
    found = find(load(tmp_path, "emailDomain in disposable", b"a.b.com\nb.com\nGmail.com\nx y\nHotmail.com\n"))
    assert set(found) == {"list-entry", "list-subdomain"}
    assert found["list-subdomain"] == (
        "info",
        "subdomains are not on the list disposable: it has a.b.com, and a.a.b.com slips through",
    )
    said = [one.message for one in check_rules(load(tmp_path, "emailDomain in disposable", b"x.com\nGmail.com\nx y"))]
    assert said[0].startswith("of the list disposable 'Gmail.com' (line 2) can never match")
    assert said[1].startswith("of the list disposable 'x y' (line 3) can never match")
    assert find(load(tmp_path, "emailDomain in disposable", b"a.com", action="allow")) == {}
    assert find(load(tmp_path, "countryCode in disposable", b"DE\nFR")) == {}
    assert "list-entry" in find(load(tmp_path, "countryCode in disposable", b"DE\nfr"))


@pytest.mark.parametrize(
    ("lists", "data", "said"),
    [
        ("{x: ./none.txt}", b"a", "rules.yaml:1: list x: "),
        ("{x: ./domains.txt}", b" \n# nothing\n", "has no entries"),
        ("{x: ./domains.txt}", b"caf\xe9.com", "not UTF-8"),
        ("{x: ./domains.txt}", b"a\0b", "NUL"),
        ("{x: ./domains.txt}", b"\n".join(b"%d" % number for number in range(MAX_ENTRIES + 1)), "500,000 entries"),
        ("{x: ./domains.txt}", b"\n" * 1_000_001, "500,000 entries"),
        ("{x: .}", b"a", "can't be read"),
        ("{x: [a]}", b"a", "list x is text"),
        ("{x: }", b"a", "names no file"),
        ("{email: ./domains.txt}", b"a", "email is a field"),
        ("{in: ./domains.txt}", b"a", "can't be the name of a list"),
        ("{a-b: ./domains.txt}", b"a", "can't be the name of a list"),
        ("[x]", b"a", "lists is a mapping"),
    ],
)
def test_a_bad_list_is_an_error_of_the_rules_file(tmp_path: Path, lists: str, data: bytes, said: str) -> None:
    (tmp_path / "domains.txt").write_bytes(data)
    (tmp_path / "rules.yaml").write_text(f"lists: {lists}\n")
    with pytest.raises(ConfigError) as caught:
        load_rules(tmp_path / "rules.yaml")
    assert caught.value.code == "invalid-rules"
    assert said in caught.value.message


def test_the_backend_gets_the_entries_and_the_file_keeps_the_name(tmp_path: Path) -> None:
    rules = load(tmp_path, "emailDomain in disposable || email in disposable")
    written = '["mailinator.com", "tempmail.com", "a#b.example"]'
    pushed = expand_rules(rules)
    assert pushed.rules[0].condition == f"emailDomain in {written} || email in {written}"
    assert restore_lists(pushed, rules) == rules
    longer = load(tmp_path, "emailDomain in disposable || email in disposable", DOMAINS + b"\nnew.com")
    assert restore_lists(pushed, longer) == pushed


def test_what_the_backend_cannot_take_is_not_pushed(tmp_path: Path) -> None:
    many = load(tmp_path, "emailDomain in disposable", b"\n".join(b"domain%d.example" % n for n in range(20_000)))
    with pytest.raises(ConfigError, match="262,144 are the most"):
        expand_lists(many.rules[0])
    assert find(many)["list-size"][0] == "warning"
    some = load(tmp_path, "emailDomain in disposable", b"\n".join(b"d%d.com" % n for n in range(4_000)))
    assert find(some)["list-size"][0] == "info"
    for entry in (b'"a.com",', b"a\\b.com"):
        with pytest.raises(ConfigError, match="line 1 of the list disposable"):
            expand_lists(load(tmp_path, "emailDomain in disposable", entry).rules[0])


def test_a_difference_shows_the_entries_of_a_long_list() -> None:
    long = "[" + ", ".join(f'"d{number}.com"' for number in range(20)) + "]"
    assert len(break_lists(f"a in {long} && b in {long}").split("\n")) == 39
    assert break_lists('a in ["b", "c"]') == 'a in ["b", "c"]'


def test_a_long_list_costs_no_more_for_each_entry(tmp_path: Path) -> None:
    def work(number: int) -> None:
        rules = load(tmp_path, "emailDomain in disposable", b"\n".join(b"d%d.com" % n for n in range(number)))
        check_rules(rules)
        assert judge(rules, "x@d7.com") == "matched"

    assert growth(work, 2_000) < LINEAR

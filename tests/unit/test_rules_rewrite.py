"""Rules files changed in place, and priorities with the fewest changes."""

from __future__ import annotations

import difflib
import itertools
import json
import random
from dataclasses import replace
from typing import Any

import pytest
import yaml

from stackctl.core.errors import ConfigError, UsageError
from stackctl.rules.check import check_rules
from stackctl.rules.editing import move_rule
from stackctl.rules.model import Action, Rule, RuleSet
from stackctl.rules.priorities import assign_priorities
from stackctl.rules.rewrite_rules_file import rewrite_rules
from stackctl.rules.rules_file import parse_rules
from tests.cel_js_oracle import ask
from tests.growth import LINEAR, growth

TEXT = """\
# our rules
default_action: allow   # for now
rules:
  # disposable
  flow: {display_name: Disposable mail, priority: 100, condition: true, action: {type: reject, message: note}}   # 1

  block:
    condition: |   # many lines
      riskScores.bot > 80 &&
        email != ""
    priority: 50  # fifty
    action:
      type: restrict   # softly
  # the end
"""


def changed(text: str, wanted: RuleSet) -> list[str]:
    """The lines that change, as a diff shows them."""
    after = rewrite_rules(text, "rules.yaml", wanted)
    lines = difflib.ndiff(text.splitlines(), after.splitlines())
    return [line.strip() for line in lines if line[0] in "+-"]


def with_rule(id_: str, **values: object) -> RuleSet:
    held = parse_rules(TEXT, "rules.yaml")
    return replace(held, rules=tuple(replace(one, **values) if one.id == id_ else one for one in held.rules))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("wanted", "lines"),
    [
        (with_rule("block", priority=7), ["-     priority: 50  # fifty", "+     priority: 7  # fifty"]),
        (with_rule("block", enabled=False), ["+     enabled: false"]),
        (with_rule("block", condition='email == "😀" ||\n true'),
         ["-     condition: |   # many lines", "-       riskScores.bot > 80 &&", '-         email != ""',
          '+     condition: "email == \\"\\U0001f600\\" ||\\n true"']),
        (with_rule("block", action=Action("restrict", "a: b #c")), ["+       message: 'a: b #c'"]),
        (with_rule("block", action=Action("log")),
         ["-       type: restrict   # softly", "+       type: log   # softly"]),
        (
            with_rule("block", condition='email == "x"'),
            ["-     condition: |   # many lines", "-       riskScores.bot > 80 &&", '-         email != ""',
             "+     condition: email == \"x\""],
        ),
        (replace(parse_rules(TEXT, ""), default_action="reject"),
         ["- default_action: allow   # for now", "+ default_action: reject   # for now"]),
        (RuleSet("allow", parse_rules(TEXT, "").rules[:1]),
         ["-   block:", "-     condition: |   # many lines", "-       riskScores.bot > 80 &&",
          '-         email != ""', "-     priority: 50  # fifty", "-     action:",
          "-       type: restrict   # softly"]),
        (RuleSet("allow", (*parse_rules(TEXT, "").rules, Rule("new one", "new one", True, 3, "true", Action("log")))),
         ["+   new one:", "+     priority: 3", "+     condition: 'true'", "+     action: {type: log}"]),
    ],
)  # fmt: skip
def test_only_what_changes_changes(wanted: RuleSet, lines: list[str], newline: str) -> None:
    assert sorted(changed(TEXT.replace("\n", newline), wanted)) == sorted(line.strip() for line in lines)


def test_values_in_one_line_are_replaced_there() -> None:
    (old, new) = changed(TEXT, with_rule("flow", priority=1, display_name="x, y", action=Action("log")))
    assert new == old.replace("-", "+", 1).replace("100", "1").replace("Disposable mail", "'x, y'").replace(
        "{type: reject, message: note}", "{type: log}"
    )


@pytest.mark.parametrize(
    "text", ["", "# nothing yet\n", "rules:\n", "rules: {}\n", "default_action: reject", "rules:   # none\n"]
)
def test_a_first_rule_goes_into_any_file(text: str) -> None:
    held = parse_rules(text, "rules.yaml")
    rule = Rule("a", "A", False, 5, 'email == "it\'s"', Action("reject", "m"))
    after = rewrite_rules(text, "rules.yaml", replace(held, rules=(rule,)))
    (found,) = parse_rules(after, "rules.yaml").rules
    assert replace(found, line=0) == rule
    assert text.strip().removesuffix("{}").removeprefix("rules:").strip() in after


NOTED = """\
default_action: allow
rules: {
  a: {action: {type: log}},  # about a
  # about b
  b: {action: {type: log}},  # also b
  c: {action: {type: log}}
}
"""


@pytest.mark.parametrize("gone", ["a", "b", "c", "ab", "bc"])
def test_comments_stay_where_rules_in_braces_go(gone: str) -> None:
    held = parse_rules(NOTED, "")
    after = rewrite_rules(NOTED, "", replace(held, rules=tuple(one for one in held.rules if one.id not in gone)))
    assert all(comment in after for comment in ("# about a", "# about b", "# also b"))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("rules:\n  a:\n    action:\n      type: log\n      message:\n    priority: 3",
         ["-       message:", "+       message: m"]),
        ("{default_action: allow, rules: {a: {action: {type: log, message:  }}}}", None),
    ],
)  # fmt: skip
def test_a_value_that_was_left_empty_is_filled(text: str, lines: list[str] | None) -> None:
    held = parse_rules(text, "")
    wanted = replace(held, rules=(replace(held.rules[0], action=Action("log", "m")),))
    if lines is None:
        assert "message:  m}" in rewrite_rules(text, "", wanted)
    else:
        assert changed(text, wanted) == [line.strip() for line in lines]


def test_a_note_goes_and_a_name_comes_in_one_change() -> None:
    text = (
        "rules:\n  a:\n    action:\n      type: log\n      # why\n      message: m  # n\n  b: {action: {type: log}}\n"
    )
    held = parse_rules(text, "")
    new = replace(held.rules[0], display_name="A", action=Action("allow"))
    assert rewrite_rules(text, "", replace(held, rules=(new, held.rules[1]))) == (
        "rules:\n  a:\n    action:\n      type: allow\n      # why\n    display_name: A\n  b: {action: {type: log}}\n"
    )


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("{default_action: reject}\n", "{default_action: reject, rules: {a: {priority: 5, action: {type: log}}}}\n"),
        ("---\ndefault_action: reject  # x\n...\n",
         "---\ndefault_action: reject  # x\nrules:\n  a:\n    priority: 5\n    action: {type: log}\n...\n"),
    ],
)  # fmt: skip
def test_rules_go_behind_the_other_keys(text: str, after: str) -> None:
    rule = Rule("a", "a", True, 5, None, Action("log"))
    assert rewrite_rules(text, "", replace(parse_rules(text, ""), rules=(rule,))) == after


def test_an_alias_is_left_to_a_person() -> None:
    text = (
        "rules:\n  a: {priority: &p 5, condition: x, action: {type: log}}\n  b: {priority: *p, action: {type: log}}\n"
    )
    held = parse_rules(text, "rules.yaml")
    wanted = replace(held, rules=(held.rules[0], replace(held.rules[1], priority=6)))
    with pytest.raises(ConfigError, match="3: written so"):
        rewrite_rules(text, "rules.yaml", wanted)


def test_a_rule_whose_anchor_others_take_over_stays_and_its_alias_goes() -> None:
    text = "rules:\n  a: &one\n    action: {type: log}\n  b: *one  # as a\n  c: {action: {type: allow}}\n"
    held = parse_rules(text, "rules.yaml")
    with pytest.raises(ConfigError, match=r"2: &one would go, which \*one in line 4 takes over"):
        rewrite_rules(text, "rules.yaml", replace(held, rules=held.rules[1:]))
    left = rewrite_rules(text, "rules.yaml", replace(held, rules=(held.rules[0], held.rules[2])))
    assert left == text.replace("  b: *one  # as a\n", "")


def test_random_changes_read_as_they_were_meant() -> None:
    chance = random.Random(7)
    texts = [
        "plain",
        "a: b",
        "it's",
        'qu"o\\te',
        "# no",
        "é😀",
        "line\nline",
        " - ",
        "{x}",
        "null",
        "5",
        "true",
        "*a",
        "&a",
    ]
    flow = "# our rules\nrules: {a: {action: {type: log}}, b: {priority: 3, action: {type: log}}}\n# the end\n"
    for _ in range(300):
        text = chance.choice([TEXT, flow])
        held = parse_rules(text, "")
        for _ in range(4):
            rules = {rule.id: rule for rule in held.rules}
            for id_ in chance.sample([*rules, "n1", "n: 2", "3"], 3):
                if chance.random() < 0.25:
                    rules.pop(id_, None)
                    continue
                rules[id_] = Rule(
                    id_, chance.choice(texts), chance.random() < 0.5, chance.randrange(9), chance.choice(texts),
                    Action(chance.choice(["allow", "log"]), chance.choice([None, *texts])),
                )  # fmt: skip
            held = replace(held, rules=tuple(rules.values()))
            text = rewrite_rules(text, "rules.yaml", held)
        assert "# our rules" in text and "# the end" in text


def test_priorities_change_as_little_as_possible() -> None:
    chance = random.Random(3)
    for _ in range(200):
        rules = [Rule(id_, id_, True, chance.randrange(6), None, Action("log")) for id_ in "abcde"]
        chance.shuffle(rules)
        found = assign_priorities(rules)
        assert [one.id for one in RuleSet("allow", tuple(found)).ordered] == [one.id for one in rules]
        number = sum(one != other for one, other in zip(rules, found, strict=True))
        fewer = itertools.combinations(range(5), number - 1) if number else ()
        assert not any(_possible(rules, changed) for changed in fewer)


def test_the_order_is_the_one_of_the_backend() -> None:
    """Of JavaScript: UTF-16 units without case, `a` before `A`, array indices first; moves come out in it."""
    chance = random.Random(4)
    ids = ["a", "A", "b_", "b-", "B0", "bz", "Z", "_", "é", "ß", "ss", "\U0001f600", "\uff5e", "0", "7", "10", "010",
           "4294967294", "4294967295", "-1", "1.5", "2024"]  # fmt: skip
    sets = [
        [Rule(id_, id_, True, chance.randrange(3), None, Action("log")) for id_ in chance.sample(ids, 9)]
        for _ in range(200)
    ]
    expected = ask({"rules": [{"id": rule.id, "priority": rule.priority} for rule in rules]} for rules in sets)
    assert [[rule.id for rule in RuleSet("allow", tuple(rules)).ordered] for rules in sets] == expected


def test_a_whole_number_as_an_id_is_first_and_stays_there() -> None:
    rules = RuleSet("allow", tuple(Rule(id_, id_, True, 9, None, Action("log")) for id_ in ("b", "2024", "a_", "ab")))
    assert [rule.id for rule in rules.ordered] == ["2024", "ab", "a_", "b"]
    assert [rule.id for rule in move_rule(rules, "b", 1).ordered] == ["2024", "b", "ab", "a_"]
    for id_, position in (("b", 0), ("2024", 3)):
        with pytest.raises(UsageError, match="2024 first"):
            move_rule(rules, id_, position)
    (finding,) = (one for one in check_rules(rules) if one.code == "integer-id")
    assert (finding.rule_id, finding.severity, finding.suggestion) == ("2024", "warning", "rule-2024")


def _possible(rules: list[Rule], changed: tuple[int, ...]) -> bool:
    """Whether other priorities for these places alone would do, by trying all."""
    for priorities in itertools.product(range(-1, 12), repeat=len(changed)):
        tried = list(rules)
        for place, priority in zip(changed, priorities, strict=True):
            tried[place] = replace(tried[place], priority=priority)
        if min(one.priority for one in tried) >= 0 and list(RuleSet("allow", tuple(tried)).ordered) == tried:
            return True
    return False


JSON = """{
  "rules": {
    "a": {"priority": 5, "condition": "x", "action": {"type": "log"}}
  }
}
"""


@pytest.mark.parametrize(
    "text", [JSON, JSON.replace("\n", "\r\n"), JSON.replace("  ", "\t"), "{}", '{"rules": {}}', ""]
)
def test_json_stays_json(text: str) -> None:
    held = parse_rules(text, "")
    added = Rule("b", "é😀\u2028\x85", False, 3, 'email == "\\u00e9"', Action("reject", "m"))
    for rules in [(*held.rules, added), tuple(replace(one, enabled=False) for one in held.rules), (added,), ()]:
        wanted = RuleSet("reject", rules)
        text = rewrite_rules(text, "rules.json", wanted)
        assert list(json.loads(text).get("rules", {})) == [rule.id for rule in rules]
        found = parse_rules(text, "")
        assert replace(found, rules=tuple(replace(one, line=0) for one in found.rules)) == replace(
            wanted, rules=tuple(replace(one, line=0) for one in rules)
        )


def test_a_pair_has_a_line_of_its_own_where_the_others_have() -> None:
    held = parse_rules(JSON, "")
    wanted = replace(held, rules=(*held.rules, Rule("b", "b", True, 3, "y", Action("log"))))
    assert rewrite_rules(JSON, "rules.json", wanted).splitlines()[2:4] == [
        '    "a": {"priority": 5, "condition": "x", "action": {"type": "log"}},',
        '    "b": {"priority": 3, "condition": "y", "action": {"type": "log"}}',
    ]


def test_a_tab_behind_a_colon_stays() -> None:
    text = "rules:\t# ours\n  a:\t{priority:\t5, condition: x, action: {type: log}}\n  b:\n    action:\t{type: log}\n"
    held = parse_rules(text, "")
    one, other = held.rules
    wanted = replace(held, rules=(replace(one, priority=6, enabled=False), replace(other, priority=3)))
    assert rewrite_rules(text, "", wanted) == (
        "rules:\t# ours\n  a:\t{priority:\t6, condition: x, action: {type: log}, enabled: false}\n"
        "  b:\n    action:\t{type: log}\n    priority: 3\n"
    )


@pytest.mark.parametrize("id_", ["no", "on", "2024", "y", "~", "null", "1e3", "0x1F", "1_000", "2024-01-31"])
def test_an_id_is_kept_as_it_is_written(id_: str) -> None:
    text = f"rules:\n  {id_}: {{action: {{type: log}}}}\n"
    held = parse_rules(text, "")
    assert [rule.id for rule in held.rules] == [id_]
    added = replace(held.rules[0], id=f"{id_}x", display_name="x")
    after = rewrite_rules(text, "", replace(held, rules=(replace(held.rules[0], enabled=False), added)))
    assert after.startswith(text.replace("}}", "}, enabled: false}"))
    assert [rule.id for rule in parse_rules(after, "").rules] == [id_, f"{id_}x"]
    new = rewrite_rules("", "", replace(held, rules=(held.rules[0],)))
    assert [rule.id for rule in parse_rules(new, "").rules] == [id_]


@pytest.mark.parametrize(
    "change", [{"priority": 7}, {"action": Action("allow")}, {"action": Action("allow", "m")}, {"enabled": False}, None]
)
def test_what_comes_from_a_merge_key_is_changed_rightly_or_left_to_a_person(change: dict[str, Any] | None) -> None:
    text = (
        "rules:\n  a: &a {priority: 5, condition: x, action: &log {type: log, message: m}}\n"
        "  b: {<<: *a}\n  c: *a\n  d: {<<: *a, action: {<<: *log}}\n"
    )
    held = parse_rules(text, "")
    for place in range(4):
        rules = list(held.rules)
        rules[place : place + 1] = [] if change is None else [replace(rules[place], **change)]
        wanted = replace(held, rules=tuple(rules))
        try:
            found = parse_rules(rewrite_rules(text, "r", wanted), "")
        except ConfigError as error:
            assert error.code in ("edit-by-hand", "invalid-rules")
        else:
            assert [replace(one, line=0) for one in found.rules] == [replace(one, line=0) for one in rules]


def test_texts_are_written_as_yaml_writes_them() -> None:
    texts = ["", "a", "yes", "No", "null", "~", "1", "1.5", "0x1", "2024-01-02", "a b", " a", "a ", "a: b", "a #b",
             "a#b", "#a", "-", "- a", "-a", "?a", "? a", "a, b", "[a]", "{a}", "a}", "*a", "&a", "!a", "|", ">", "'a'",
             '"a"', "it's", "%a", "@a", "`a", "=", "<<", "a:", ":a", "é", "😀", "a" * 200, "---", "...",
             'email.endsWith("@a.com")']  # fmt: skip
    rules = tuple(Rule(f"r{n}", f"r{n}", True, n, None, Action("log", text)) for n, text in enumerate(texts))
    written = rewrite_rules("", "", RuleSet("allow", rules))
    for text in texts:
        as_yaml = yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=999).strip()[1:-1]
        assert f"message: {as_yaml}}}\n" in written


def test_many_rules_are_changed_in_linear_time() -> None:
    def change(size: int) -> None:
        rules = tuple(Rule(f"r{n}", f"r{n}", True, size - n, f'email == "{n}"', Action("log")) for n in range(size))
        text = rewrite_rules("", "", RuleSet("allow", rules))
        rewrite_rules(text, "", move_rule(RuleSet("allow", rules), "r0", size // 2))

    assert growth(change, 60) < LINEAR

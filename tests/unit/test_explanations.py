"""Every code that can be printed is explained, and nothing else is.

That the commands in the texts exist is seen by tests/acceptance/test_docs.py, in docs/errors.md.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

import stackctl
from stackctl.cli import app
from stackctl.cli.explanations.texts import PAGE, Explanation, compose_page, read_explanations
from stackctl.core import errors
from stackctl.migrate import verify
from stackctl.rules import reachability

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(stackctl.__file__).parent
ROOT = PACKAGE.parent
# What hands a code on to a ConfigError, beside the classes of errors themselves; `service` is a partial ServiceError.
MAKERS = {"read_text": 3, "to_error": 3, "_refuse": 3, "_make_error": 3, "service": 4}

# An error of another class is made of one that has the code: of a UsageError, what the configuration names.
HANDED_ON = {"unknown-mapping": {3}}


def _exit_code(call: ast.Call, module: dict[str, Any]) -> int | None:
    """The exit code of what a call with `code=` makes; None where the class is that of an error at hand."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in MAKERS:
        return MAKERS[name]
    made = module.get(name) or getattr(errors, name, None)
    return made.exit_code if isinstance(made, type) and issubclass(made, errors.StackctlError) else None


def _codes_of(node: ast.expr, function: ast.AST | None, module: dict[str, Any]) -> Iterator[str]:
    """The codes that an expression can be. Fails for one that a reader can't tell either."""
    match node:
        case ast.Constant(value=str(code)):
            yield code
        case ast.IfExp():
            yield from _codes_of(node.body, function, module)
            yield from _codes_of(node.orelse, function, module)
        case ast.Attribute(attr="code") | ast.JoinedStr():
            return  # that of an error at hand; of `unknown_name_error`, see below
        case ast.Call(func=ast.Attribute(attr="get", value=ast.Name(id=table)), args=[_, default]):
            yield from module[table].values()
            yield from _codes_of(default, function, module)
        case ast.Name(id=name) if isinstance(module.get(name), str):
            yield module[name]
        case ast.Name(id=name) if function is not None:
            if name in (one.arg for one in (*function.args.args, *function.args.kwonlyargs)):  # type: ignore[attr-defined]
                arguments = function.args  # type: ignore[attr-defined]
                for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
                    if argument.arg == name and default is not None:
                        yield from _codes_of(default, None, module)
                return  # whoever calls it says which
            (given,) = [
                one.value
                for one in ast.walk(function)
                if isinstance(one, ast.Assign) and [ast.unparse(target) for target in one.targets] == [name]
            ]
            yield from _codes_of(given, function, module)
        case _:
            pytest.fail(f"give the code as it is, so that it can be found: {ast.unparse(node)}")


def _occurring() -> dict[str, set[int]]:
    """Every code in the source, with the exit codes of the classes that carry it."""
    found: dict[str, set[int]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "code=" not in text and "unknown_name_error" not in text:
            continue
        module = vars(importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)))
        parsed = ast.parse(text)
        holder: dict[ast.AST, ast.AST] = {
            inner: outer
            for outer in ast.walk(parsed)
            if isinstance(outer, ast.FunctionDef)
            for inner in ast.walk(outer)
        }  # the innermost, which comes last
        for call in ast.walk(parsed):
            if not isinstance(call, ast.Call):
                continue
            if getattr(call.func, "id", "") == "unknown_name_error":
                assert isinstance(call.args[0], ast.Constant)
                found[f"unknown-{str(call.args[0].value).split()[-1]}"].add(errors.UsageError.exit_code)
            made = module.get(getattr(call.func, "id", ""))
            if isinstance(made, type) and not issubclass(made, errors.StackctlError):
                continue  # somebody else's code, such as Stripe's
            exit_code = _exit_code(call, module)
            for keyword in call.keywords:
                if keyword.arg == "code":
                    for code in _codes_of(keyword.value, holder.get(call), module):
                        found[code] |= set() if exit_code is None else {exit_code}
    return dict(found)


@pytest.fixture(scope="module")
def explained() -> dict[str, Explanation]:
    found = [one for one in read_explanations() if one.found_by is None]
    assert len({one.code for one in found}) == len(found)
    return {one.code: one for one in found}


@pytest.fixture(scope="module")
def occurring() -> dict[str, set[int]]:
    return _occurring()


def test_every_code_is_explained_and_every_explanation_has_its_code(
    explained: dict[str, Explanation], occurring: dict[str, set[int]]
) -> None:
    assert sorted(occurring.keys() - explained.keys()) == [], "add them to stackctl/cli/explanations"
    assert sorted(explained.keys() - occurring.keys()) == [], "no error has these codes"


def test_the_exit_codes_are_those_of_the_errors(
    explained: dict[str, Explanation], occurring: dict[str, set[int]]
) -> None:
    for code, others in HANDED_ON.items():
        occurring = occurring | {code: occurring[code] | others}
    assert {code: set(one.exit_codes) for code, one in explained.items()} == occurring


def _find_constants(folder: str, makers: dict[str, int]) -> set[str]:
    """What stands, as a text, at this place among the arguments of these calls; or is given to the name there."""
    found: set[str] = set()
    for path in (PACKAGE / folder).rglob("*.py"):
        parsed = ast.parse(path.read_text(encoding="utf-8"))
        for call in (node for node in ast.walk(parsed) if isinstance(node, ast.Call)):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name not in makers or len(call.args) <= makers[name]:
                continue
            match call.args[makers[name]]:
                case ast.Constant(value=str(rule)):
                    found.add(rule)
                case ast.Name(id=variable):
                    given = [
                        one.value
                        for one in ast.walk(parsed)
                        if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == variable
                    ]
                    values = [part for one in given if isinstance(one, ast.IfExp) for part in (one.body, one.orelse)]
                    found |= {str(one.value) for one in values if isinstance(one, ast.Constant) and one.value}
                case _:
                    pass
    return found


def test_what_the_checks_find_is_explained() -> None:
    named: dict[str, set[str]] = defaultdict(set)
    for one in read_explanations():
        if one.found_by is not None:
            assert one.code not in named[one.found_by]
            named[one.found_by].add(one.code)
    tried = _find_constants("migrate/compatibility", {"_to_failure": 2, "CompatibilityFinding": 3})
    of_files = {"file-edited", "file-deleted", "file-out-of-order"}
    assert named == {
        "stackctl rules check": _find_constants("rules", {"wrong": 1, "Problem": 1, "Finding": 3})
        | set(get_args(reachability.Kind)),
        # `duplicate-…` and `…-column` are put together of what is meant.
        "stackctl mappings check": _find_constants("mapping", {"add": 0, "table": 1})
        | {"duplicate-name", "duplicate-target", "lookup-column"},
        "stackctl migrate verify": set(get_args(verify.Kind)),
        "stackctl migrate check": tried | of_files | {"needs-superuser"},
    }


def test_tables_of_other_pages_have_the_same_exit_codes(explained: dict[str, Explanation]) -> None:
    listed: dict[str, set[int]] = defaultdict(set)
    for page in (ROOT / "docs").glob("*.md"):
        for codes, exits in re.findall(r"^\| (`[a-z`, -]+`) \| (\d(?:, \d)*) \|", page.read_text(), re.MULTILINE):
            for code in re.findall(r"`([a-z-]+)`", codes):
                listed[code] |= {int(number) for number in exits.split(", ")}
    assert len(listed) > 20
    assert listed == {code: set(explained[code].exit_codes) for code in listed}


def test_the_page_is_that_of_the_texts() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == compose_page(), (
        "run `python -m stackctl.cli.explanations.texts`"
    )


def test_a_text_is_short_and_its_paragraphs_are_in_order(explained: dict[str, Explanation]) -> None:
    long = [one.code for one in explained.values() if len(one.meaning) > 100 or len(one.why) > 420]
    assert long == []
    assert [one.code for one in explained.values() if not one.meaning.endswith(".") or "\n    \n" in one.fix] == []


def test_a_code_that_is_an_error_and_a_rule_has_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["explain", "transaction-control", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["kind"] for one in document["explanations"]] == ["error", "finding"]
    assert document["explanations"][0]["exit_codes"] == [3]


def test_commands_can_be_copied_from_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["explain", "lock-held"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "lock-held: an error, exit code 5"
    assert "    stackctl migrate up --lock-wait 5m" in lines
    assert max(map(len, lines)) <= 80


def test_the_list_has_a_line_for_each(explained: dict[str, Explanation], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["explain"]) == 0
    text = capsys.readouterr().out
    assert [code for code in explained if not re.search(rf"^  {code} +\d", text, re.MULTILINE)] == []
    assert app.run(["explain", "--json"]) == 0
    listed = [one["code"] for one in json.loads(capsys.readouterr().out)["codes"]]
    assert listed == [one.code for one in read_explanations()]


def test_an_unknown_code_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["explain", "lock-hold"]) == 2
    assert "hint: did you mean lock-held" in capsys.readouterr().err

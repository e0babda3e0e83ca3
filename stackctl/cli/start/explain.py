"""stackctl explain: what the code of an error means, why it comes, and what to do."""

from __future__ import annotations

import sys
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command
from stackctl.core.errors import UsageError
from stackctl.core.folding import fold_sentence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.cli.explanations.texts import Explanation
    from stackctl.core.console import Console

_USUAL, _WIDEST = 80, 100  # columns of a text: off a terminal, and on a window however wide
_NEAREST = 3
_EXAMPLE = """
stackctl explain lock-held
stackctl explain
"""


@command(example=_EXAMPLE)
def explain(
    run: Run,
    code: Annotated[
        str | None, typer.Argument(metavar="[CODE]", help="Of an error or a finding; default: list them.")
    ] = None,
) -> None:
    """Explain an error by its code: what it means, why it happens, what to do.

    What `rules check`, `mappings check` and `migrate lint`, `check` and `verify` find is explained, too. Without a
    code, all are listed.

    Prints the explanation; without a code a line for each code.
    Exit codes: 0 printed; 2 there is no such code.
    """
    from stackctl.cli.explanations.texts import read_explanations

    errors = list(read_explanations())
    if code is None:
        _list(run, errors)
        return
    documents = [*(_to_document(one) for one in errors if one.code == code), *_find_rules(code)]
    if not documents:
        raise _unknown_error(code, [one.code for one in errors])
    run.finish({"code": code, "explanations": documents}, lambda: _show(run.console, code, documents))


def _list(run: Run, errors: Sequence[Explanation]) -> None:
    def show() -> None:
        console = run.console
        width = console.width or sys.maxsize  # off a terminal one line each, to be searched
        for room, found in groupby(errors, key=lambda one: one.room):
            listed = list(found)
            console.line(room, "bold")
            longest = max(len(one.code) for one in listed)
            for one in listed:
                head = f"  {one.code:{longest}}  {','.join(map(str, one.exit_codes)):>3}  "
                for line in fold_sentence(head + one.meaning, width, len(head.lstrip())):
                    console.line(line, exact=True)
            console.line()
        console.line("The number is the exit code. `stackctl explain CODE` says more, and explains the rules of")
        console.line("`migrate lint` and `migrate check` by their ids, too.")

    summary = [
        {"code": one.code, "group": one.room, "exit_codes": one.exit_codes, "meaning": one.meaning} for one in errors
    ]
    run.finish({"codes": summary}, show)


def _to_document(one: Explanation) -> dict[str, Any]:
    from stackctl.core.documents import Exact

    return {
        "kind": "finding" if one.found_by else "error",
        "found_by": one.found_by,
        "exit_codes": one.exit_codes,
        "meaning": one.meaning,
        "why": one.why,
        "fix": Exact(one.fix),
        "commands": Exact(one.commands),
    }


def _find_rules(id_: str) -> list[dict[str, Any]]:
    from stackctl.migrate.compatibility.contract_rules import RULES as CONTRACT_RULES
    from stackctl.migrate.lint.linter import RULES as LINT_RULES

    found: list[dict[str, Any]] = []
    if (lint := LINT_RULES.get(id_)) is not None:
        texts = {"meaning": lint.title, "why": lint.why}
        found.append(
            {"kind": "finding", "found_by": "stackctl migrate lint", "severity": lint.severity} | _to_sentences(texts)
        )
    if (contract := CONTRACT_RULES.get(id_)) is not None:
        texts = {"why": contract.why, "fix": contract.safe}
        found.append(
            {"kind": "finding", "found_by": "stackctl migrate check", "severity": contract.severity}
            | _to_sentences(texts)
        )
    return found


def _to_sentences(texts: dict[str, str]) -> dict[str, str]:
    return {name: f"{text[0].upper()}{text[1:]}." for name, text in texts.items()}


def _unknown_error(code: str, known: Sequence[str]) -> UsageError:
    import difflib

    from stackctl.migrate.compatibility.contract_rules import RULES as CONTRACT_RULES
    from stackctl.migrate.lint.linter import RULES as LINT_RULES

    near = difflib.get_close_matches(code.lower(), {*known, *LINT_RULES, *CONTRACT_RULES}, n=_NEAREST)
    hint = f"did you mean {' or '.join(near)}?" if near else "`stackctl explain` lists them"
    return UsageError(f"there is no code {code!r}", code="unknown-code", hint=hint, details={"nearest": near})


def _show(console: Console, code: str, documents: Sequence[dict[str, Any]]) -> None:
    width = min(console.width or _USUAL, _WIDEST)

    def say(text: str) -> None:
        for part in text.split("\n\n"):
            console.line()
            as_it_is = part.startswith("    ")
            for line in part.splitlines() if as_it_is else fold_sentence(" ".join(part.split()), width, hang=0):
                console.line(line, exact=True)

    for one in documents:
        if one is not documents[0]:
            console.line()
        console.line(f"{code}: {_describe(one)}", "bold")
        if "meaning" in one:
            say(one["meaning"])
        say(f"Why: {one['why']}")
        if fix := one.get("fix"):
            say(f"What to do: {fix if isinstance(fix, str) else fix.value}")


def _describe(one: dict[str, Any]) -> str:
    if one["kind"] == "error":
        return f"an error, exit code {' or '.join(map(str, one['exit_codes']))}"
    severity = f", {one['severity']}" if "severity" in one else ""
    return f"a finding of {one['found_by']}{severity}"

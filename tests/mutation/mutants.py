"""Small changes of meaning, one at a time: to the syntax tree of a module, and to the SQL beside it or in it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_COMPARED: dict[type[ast.cmpop], str] = {
    ast.Eq: "!=", ast.NotEq: "==", ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], str] = {ast.Add: "-", ast.Sub: "+", ast.Mult: "//", ast.FloorDiv: "*"}
# What a statement of SQL means less, or the other way round; the first group that matched is replaced.
_SQL: list[tuple[str, str]] = [
    (r"\bORDER BY [^()\n]*?(?=\s+LIMIT|\s+FOR |\)|\"|'|$)", ""),
    (r"\bDESC\b", "ASC"),
    (r"\bFOR (?:NO KEY )?UPDATE SKIP LOCKED\b", ""),
    (r" SKIP LOCKED\b", ""),
    (r"\bFOR (?:NO KEY )?(?:UPDATE|SHARE)\b(?! SKIP)", ""),
    (r"\bNOT EXISTS\b", "EXISTS"),
    (r"(?<!NOT )(?<!IF )\bEXISTS (?=\()", "NOT EXISTS "),
    (r"\bIS NOT NULL\b", "IS NULL"),
    (r"\bIS NULL\b", "IS NOT NULL"),
    (r"(?<=\n)\s*AND (?!NOT EXISTS)[^()\n]+(?=\n)", ""),
    (r"(?<=\n)\s+OR [^()\n]+(?=\n)", ""),
    (r" AND [\w.\"]+ (?:=|<>|<=|>=|<|>) (?:%\(\w+\)s(?:::\w+)?|[\w.\"]+)", ""),
    (r" <= ", " < "), (r" < ", " <= "), (r" >= ", " > "), (r" > ", " >= "), (r" <> ALL ", " = ANY "),
    (r"\bmax\(", "min("), (r"\bmin\(", "max("), (r"\bleast\(", "greatest("), (r"\bDISTINCT\b", ""),
    (r"\bLIMIT (?:%\(\w+\)s|\d+)", ""), (r"\bDO NOTHING\b(?=$)", "DO UPDATE SET id = EXCLUDED.id"),
    (r"\bcoalesce\(([^(),]+), [^(),]+\)", r"\1"), (r" \+ 1\b", " + 2"), (r" - (?=%\(\w+\)s::interval)", " + "),
    (r"\bWHEN NOT\b", "WHEN"), (r" AND NOT ", " AND "), (r"\bLEFT JOIN\b", "JOIN"),
]  # fmt: skip
_STATEMENT = re.compile(r"\b(?:SELECT|UPDATE|WHERE|DELETE|ORDER BY|EXISTS|LIMIT)\b")


@dataclass(frozen=True)
class Mutant:
    """`start`, `end`: offsets in the file's text. `place`: the function or the block of SQL it is in; `within`: the
    line that it begins in."""

    path: str
    place: str
    line: int
    within: str
    start: int
    end: int
    old: str
    new: str

    @property
    def key(self) -> str:
        """Its name as long as the function is: not by line numbers, which move."""
        old, new = (re.sub(r"\s+", " ", text).strip()[:90] for text in (self.old, self.new))
        where = f"{self.path}:{self.place}: "
        return where + (f"{self.within}: " if self.within != old else "") + f"{old} => {new or '(nothing)'}"

    def apply(self, root: Path) -> None:
        file = root / self.path
        text = file.read_text()
        assert text[self.start : self.end] == self.old
        file.write_text(text[: self.start] + self.new + text[self.end :])


def mutants(root: Path, path: str) -> list[Mutant]:
    text = (root / path).read_text()
    found = list(_of_sql(text, path) if path.endswith(".sql") else _Module(text, path).found())
    return list({(one.start, one.end, one.new): one for one in found if one.old != one.new}.values())


def _of_sql(text: str, path: str) -> Iterator[Mutant]:
    blocks = [(match.start(), match[1]) for match in re.finditer(r"^-- name: (\w+)$", text, re.MULTILINE)]
    for start, end, new in _sql_changes(text):
        before = text[:start]
        if blocks and start > blocks[0][0] and "--" not in before.rpartition("\n")[2]:
            place = [name for at, name in blocks if at < start][-1]
            yield _mutant(text, path, place, start, end, new)


def _mutant(text: str, path: str, place: str, start: int, end: int, new: str) -> Mutant:
    old = text[start:end]
    at = start + len(old) - len(old.lstrip())
    within = text[text.rfind("\n", 0, at) + 1 :].partition("\n")[0].strip()
    return Mutant(path, place, text[:at].count("\n") + 1, within, start, end, old, new)


def _sql_changes(text: str) -> Iterator[tuple[int, int, str]]:
    for pattern, new in _SQL:
        for match in re.finditer(pattern, text, re.MULTILINE):
            yield match.start(), match.end(), match.expand(new)


class _Module:
    """Not changed: messages (f-strings, hints), annotations, docstrings, `assert`s, what only type checkers read, and
    the numbers of a module's constants, where a second more is as right."""

    def __init__(self, text: str, path: str) -> None:
        self._text, self._path = text, path
        lines = text.encode().splitlines(keepends=True)
        self._starts = [0]
        for line in lines:
            self._starts.append(self._starts[-1] + len(line))

    def found(self) -> Iterator[Mutant]:
        for node in ast.parse(self._text).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield from self._walk(node, node.name)

    def _walk(self, node: ast.AST, place: str) -> Iterator[Mutant]:
        for field, child in ast.iter_fields(node):
            if field in ("annotation", "returns", "args", "decorator_list", "bases", "type_params"):
                if field == "args" and isinstance(child, list):
                    yield from self._children(child, place)
                continue
            yield from self._children(child if isinstance(child, list) else [child], place)

    def _children(self, nodes: list[object], place: str) -> Iterator[Mutant]:
        for node in nodes:
            if not isinstance(node, ast.AST) or isinstance(node, ast.JoinedStr | ast.Assert | ast.AnnAssign):
                if isinstance(node, ast.AnnAssign) and node.value is not None:
                    yield from self._children([node.value], place)
                continue
            if isinstance(node, ast.keyword) and node.arg in ("hint", "code", "detail", "application_name", "what"):
                continue
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue
            named = isinstance(node, ast.FunctionDef | ast.ClassDef)
            inner = f"{place}.{node.name}" if named else place
            for target, new in self._changes(node):
                yield _mutant(self._text, self._path, inner, *self._span(target), new)
            yield from self._strings(node, inner)
            yield from self._walk(node, inner)

    def _changes(self, node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
        source = self._source
        match node:
            case ast.Compare(ops=[op], comparators=[right]) if type(op) in _COMPARED:
                yield node, f"{source(node.left)} {_COMPARED[type(op)]} {source(right)}"
            case ast.BoolOp():
                word = " or " if isinstance(node.op, ast.And) else " and "
                yield node, "(" + word.join(f"({source(value)})" for value in node.values) + ")"
            case ast.UnaryOp(op=ast.Not()):
                yield node, f"bool({source(node.operand)})"
            case ast.BinOp() if type(node.op) in _ARITHMETIC and not any(
                isinstance(side, ast.JoinedStr | ast.List | ast.ListComp)
                or (isinstance(side, ast.Constant) and isinstance(side.value, str | bytes))
                for side in (node.left, node.right)
            ):
                yield node, f"{source(node.left)} {_ARITHMETIC[type(node.op)]} {source(node.right)}"
            case ast.Constant(value=bool()):
                yield node, str(not node.value)
            case ast.Constant(value=int() | float()):
                yield node, f"({node.value} + 1)"
            case ast.Return(value=ast.AST() as value) if not (isinstance(value, ast.Constant) and value.value is None):
                yield node, "return None"
            case ast.Raise() | ast.Continue() | ast.Break() | ast.AugAssign():
                yield node, "pass"
            case ast.Expr(value=ast.Call()):
                yield node, "pass"
        if isinstance(node, ast.If | ast.IfExp):
            yield node.test, f"not ({source(node.test)})"

    def _strings(self, node: ast.AST, place: str) -> Iterator[Mutant]:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _STATEMENT.search(node.value):
            start, end = self._span(node)
            for first, last, new in _sql_changes(self._text[start:end]):
                yield _mutant(self._text, self._path, place, start + first, start + last, new)

    def _span(self, node: ast.AST) -> tuple[int, int]:
        data = self._text.encode()
        ends = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]
        first, last = (len(data[: self._starts[line - 1] + column].decode()) for line, column in ends)
        return first, last

    def _source(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self._text[start:end]

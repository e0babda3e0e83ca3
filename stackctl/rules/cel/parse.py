"""The text of a condition as a tree: cel-python's parser finds its structure, this module what CEL means by it.

The tree is small and its depth is bounded, so that whatever walks it may recurse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_CHARACTERS = 262_144
MAX_DEPTH = 40  # brackets within brackets
MAX_CHAIN = 200  # of + - * / % and unary operators, which nest

_OPENING, _CLOSING = "([{", ")]}"
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"} | {c: c for c in "\\?\"'`"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.DOTALL)
# A string or a comment as a whole, so that brackets in them do not count.
_STRING_OR_BRACKET = re.compile(
    r"""//[^\n]*|[rR]?(\"\"\"|''')(?:(?<![rR]\1)\\.|(?!\1).)*\1|[rR]"[^"\n]*"|[rR]'[^'\n]*'"""
    r"""|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[()\[\]{}]""",
    re.DOTALL,
)
_OPERATORS = {
    "relation_lt": "<", "relation_le": "<=", "relation_gt": ">", "relation_ge": ">=", "relation_eq": "==",
    "relation_ne": "!=", "relation_in": "in", "addition_add": "+", "addition_sub": "-", "multiplication_mul": "*",
    "multiplication_div": "/", "multiplication_mod": "%",
}  # fmt: skip


class ConditionSyntaxError(Exception):
    """The text is no condition; `at` is the offset of the place, from 0."""

    def __init__(self, what: str, at: int) -> None:
        super().__init__(what)
        self.reason = what
        self.at = at


@dataclass(frozen=True)
class Span:
    """Where a part stands in the text: offsets from 0, the end not included."""

    start: int
    end: int


@dataclass(frozen=True)
class Literal:
    """A string, whole number, double, boolean or null."""

    value: str | int | float | bool | None
    span: Span


@dataclass(frozen=True)
class Name:
    name: str
    span: Span


@dataclass(frozen=True)
class Field:
    """`of.name`."""

    of: Node
    name: str
    span: Span


@dataclass(frozen=True)
class Index:
    of: Node
    by: Node
    span: Span


@dataclass(frozen=True)
class Call:
    """`name(arguments)`, or `of.name(arguments)`."""

    of: Node | None
    name: str
    arguments: tuple[Node, ...]
    span: Span


@dataclass(frozen=True)
class ListLiteral:
    """A list."""

    items: tuple[Node, ...]
    span: Span


@dataclass(frozen=True)
class Logical:
    """`&&` or `||` between two or more parts."""

    operator: str
    parts: tuple[Node, ...]
    span: Span


@dataclass(frozen=True)
class Binary:
    operator: str
    left: Node
    right: Node
    span: Span


@dataclass(frozen=True)
class Unary:
    """`!` or `-`."""

    operator: str
    of: Node
    span: Span


@dataclass(frozen=True)
class Conditional:
    """`when ? then : otherwise`."""

    when: Node
    then: Node
    otherwise: Node
    span: Span


@dataclass(frozen=True)
class Unsupported:
    """CEL that rules have no use for (maps, messages, bytes, unsigned numbers): only the reference evaluates it."""

    kind: str
    span: Span


Node: TypeAlias = (
    Literal | Name | Field | Index | Call | ListLiteral | Logical | Binary | Unary | Conditional | Unsupported
)


@lru_cache(maxsize=256)
def parse(text: str) -> Node:
    """The tree of a condition. Raises ConditionSyntaxError."""
    _refuse_excess(text)
    from celpy.celparser import CELParseError

    try:
        tree = _parser().parse(text)
    except CELParseError as error:
        token = getattr(error.__context__, "token", None)
        if getattr(token, "type", None) == "$END":
            raise ConditionSyntaxError("the condition ends too early", len(text.rstrip())) from None
        at = _offset(text, error.line or 1, error.column or 1)
        unclosed = text[at] in "\"'" and not _STRING_OR_BRACKET.match(text, at)
        raise ConditionSyntaxError(
            "this string is never closed" if unclosed else f"{text[at]!r} is not expected here", at
        ) from None
    return _Reader(text).read(tree, 0)


def to_line_and_column(text: str, at: int) -> tuple[int, int]:
    """Line and column of an offset, both from 1."""
    return text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1


def point_at(text: str, at: int) -> str:
    """The line of an offset, and a caret below the place; a long line is cut."""
    line, column = to_line_and_column(text, at)
    shown = text.split("\n")[line - 1].replace("\t", " ")
    start = max(0, column - 60)
    return f"{shown[start : start + 100]}\n{' ' * (column - 1 - start)}^"


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    yield node
    for child in children(node):
        yield from walk(child)


def children(node: Node) -> tuple[Node, ...]:
    match node:
        case Field(of=of) | Unary(of=of):
            return (of,)
        case Index(of=of, by=by):
            return (of, by)
        case Call(of=of, arguments=arguments):
            return arguments if of is None else (of, *arguments)
        case ListLiteral(items=items):
            return items
        case Logical(parts=parts):
            return parts
        case Binary(left=left, right=right):
            return (left, right)
        case Conditional(when=when, then=then, otherwise=otherwise):
            return (when, then, otherwise)
        case _:
            return ()


@lru_cache(maxsize=1)
def _parser() -> Any:
    from celpy.celparser import CELParser
    from lark import Token

    class Parser(CELParser):
        @staticmethod
        def ambiguous_literals(t: Token) -> Token:
            """As the original, which forgets where the token stands."""
            return Token.new_borrow_pos("BOOL_LIT", t.value, t) if t.value in ("true", "false") else t

    CELParser.CEL_PARSER = None  # shared by all; the interpreter's own may have been first
    return Parser()


def _offset(text: str, line: int, column: int) -> int:
    lines = text.split("\n")
    before = sum(len(one) + 1 for one in lines[: line - 1])
    return min(before + column - 1, max(len(text) - 1, 0))


def _refuse_excess(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise ConditionSyntaxError(
            f"the condition has {len(text):,} characters; {MAX_CHARACTERS:,} are the most", MAX_CHARACTERS
        )
    if not text.strip():
        raise ConditionSyntaxError("the condition is empty", 0)
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        if found[0] in _OPENING:
            depth += 1
            if depth > MAX_DEPTH:
                raise ConditionSyntaxError(f"brackets are nested more than {MAX_DEPTH} deep", found.start())
        elif found[0] in _CLOSING:
            depth -= 1


class _Reader:
    """Reads lark's tree, whose rules are one node for each level of precedence."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read(self, tree: Any, depth: int) -> Node:
        while not _is_token(tree) and len(tree.children) == 1 and tree.data not in _LEAVES:
            tree = tree.children[0]
        span = self._span(tree)
        if depth > MAX_CHAIN:
            raise ConditionSyntaxError(f"more than {MAX_CHAIN} operations are nested here", span.start)
        match tree.data:
            case "expr":
                when, then, otherwise = (self.read(child, depth + 1) for child in tree.children)
                return Conditional(when, then, otherwise, span)
            case "conditionalor":
                return Logical("||", self._parts(tree, "conditionalor", depth), span)
            case "conditionaland":
                return Logical("&&", self._parts(tree, "conditionaland", depth), span)
            case "relation" | "addition" | "multiplication":
                left, right = tree.children
                return Binary(
                    _OPERATORS[left.data], self.read(left.children[0], depth + 1), self.read(right, depth + 1), span
                )
            case "unary":
                sign, of = tree.children
                return Unary("!" if sign.data == "unary_not" else "-", self.read(of, depth + 1), span)
            case "member_dot":
                of, name = tree.children
                return Field(self.read(of, depth + 1), str(name), span)
            case "member_dot_arg":
                of, name, *rest = tree.children
                return Call(self.read(of, depth + 1), str(name), self._list(rest, depth), span)
            case "member_index":
                of, by = tree.children
                return Index(self.read(of, depth + 1), self.read(by, depth + 1), span)
            case "ident_arg":
                name, *rest = tree.children
                return Call(None, str(name), self._list(rest, depth), span)
            case "ident":
                return Name(str(tree.children[0]), span)
            case "paren_expr":
                return self.read(tree.children[0], depth + 1)
            case "list_lit":
                return ListLiteral(self._list(tree.children, depth), span)
            case "literal":
                return self._literal(tree.children[0], span)
            case "map_lit":
                return Unsupported("a map", span)
            case "member_object":
                return Unsupported("a message", span)
            case _:
                return Unsupported("a name with a leading dot", span)

    def _parts(self, tree: Any, rule: str, depth: int) -> tuple[Node, ...]:
        """A chain nests to the left, as deep as it is long: so it is followed in a loop."""
        found: list[Any] = []
        while not _is_token(tree) and tree.data == rule and len(tree.children) == 2:
            tree, right = tree.children
            found.append(right)
            while not _is_token(tree) and len(tree.children) == 1 and tree.data == rule:
                tree = tree.children[0]
        found.append(tree)
        return tuple(self.read(part, depth + 1) for part in reversed(found))

    def _list(self, trees: Sequence[Any], depth: int) -> tuple[Node, ...]:
        return tuple(self.read(child, depth + 1) for tree in trees for child in tree.children)

    def _literal(self, token: Any, span: Span) -> Node:
        text = str(token)
        match token.type:
            case "INT_LIT":
                number = int(text, 16) if "0x" in text.lower() else int(text)
                if not -(2**63) <= number < 2**63:
                    raise ConditionSyntaxError("a whole number has at most 64 bits", span.start)
                return Literal(number, span)
            case "FLOAT_LIT":
                return Literal(float(text), span)
            case "BOOL_LIT":
                return Literal(text == "true", span)
            case "NULL_LIT":
                return Literal(None, span)
            case "STRING_LIT" | "MLSTRING_LIT":
                return Literal(self._string(text, span.start), span)
            case "BYTES_LIT":
                return Unsupported("bytes", span)
            case _:
                return Unsupported("an unsigned number", span)

    def _string(self, text: str, start: int) -> str:
        raw = text[0] in "rR"
        body = text[1:] if raw else text
        quotes = 3 if body[:3] in ('"""', "'''") and len(body) >= 6 else 1
        body = body[quotes:-quotes]
        if raw:
            return body
        base = start + quotes

        def decoded(found: re.Match[str]) -> str:
            coded = found[1] or found[2] or found[3]
            if coded or found[4]:
                code = int(coded, 16) if coded else int(found[4], 8)
                if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                    raise ConditionSyntaxError(f"{found[0]} is no character", base + found.start())
                return chr(code)
            if found[5] not in _ESCAPES:
                raise ConditionSyntaxError(
                    f'{found[0]} is not a CEL escape; write \\\\ for a backslash, or the string as r"…"',
                    base + found.start(),
                )
            return _ESCAPES[found[5]]

        return _ESCAPE.sub(decoded, body)

    def _span(self, tree: Any) -> Span:
        meta = tree.meta
        return Span(getattr(meta, "start_pos", 0), getattr(meta, "end_pos", len(self._text)))


_LEAVES = ("ident", "literal", "list_lit", "map_lit", "paren_expr", "ident_arg", "member_dot", "member_dot_arg",
           "member_index", "member_object", "dot_ident", "dot_ident_arg")  # fmt: skip


def _is_token(tree: Any) -> bool:
    return isinstance(tree, str)

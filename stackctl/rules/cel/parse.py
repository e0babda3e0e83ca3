"""The text of a condition as a tree, in time that grows with its length and with nothing else."""

from __future__ import annotations

from functools import lru_cache

from stackctl.rules.cel.nodes import (
    Binary,
    Call,
    Conditional,
    Field,
    Index,
    ListLiteral,
    Literal,
    Logical,
    Name,
    Node,
    Span,
    Unary,
    Unsupported,
    children,
)
from stackctl.rules.cel.tokens import ConditionSyntaxError, Token, decode_string, find_tokens, is_bytes

MAX_CHARACTERS = 262_144
MAX_DEPTH = 40  # brackets within brackets
MAX_CHAIN = 200  # of + - * / % and unary operators, which nest

_CONSTANTS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
_KEYWORDS = ("in", *_CONSTANTS)
_POWERS = {
    "||": 1, "&&": 2, "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "in": 3, "+": 4, "-": 4, "*": 5, "/": 5,
    "%": 5,
}  # fmt: skip
_DIGITS = 400  # of a number, far beyond what any holds


def parse(text: str) -> Node:
    """The tree of a condition. Raises ConditionSyntaxError."""
    found = _parse(text)
    if isinstance(found, ConditionSyntaxError):
        raise found.with_traceback(None)
    return found


@lru_cache(maxsize=8192)
def _parse(text: str) -> Node | ConditionSyntaxError:
    """As `parse`; what is wrong is remembered, too, since everybody asks again."""
    try:
        if len(text) > MAX_CHARACTERS:
            what = f"the condition has {len(text):,} characters; {MAX_CHARACTERS:,} are the most"
            raise ConditionSyntaxError(what, MAX_CHARACTERS)
        if not text.strip():
            raise ConditionSyntaxError("the condition is empty", 0)
        tree = _Parser(text).parse()
        _refuse_depth(tree)
    except ConditionSyntaxError as error:
        return error
    return tree


def _refuse_depth(tree: Node) -> None:
    left = [(tree, 0)]
    while left:
        node, depth = left.pop()
        if depth > MAX_CHAIN:
            raise ConditionSyntaxError(f"more than {MAX_CHAIN} operations are nested here", node.span.start)
        left += [(child, depth + 1) for child in reversed(children(node))]


def to_line_and_column(text: str, at: int) -> tuple[int, int]:
    """Line and column of an offset, both from 1."""
    return text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1


def point_at(text: str, at: int) -> str:
    """The line of an offset, and a caret below the place; a long line is cut."""
    line, column = to_line_and_column(text, at)
    shown = text.split("\n")[line - 1].replace("\t", " ")
    start = max(0, column - 60)
    return f"{shown[start : start + 100]}\n{' ' * (column - 1 - start)}^"


class _Parser:
    """By precedence; only brackets recurse. What nests to one side is followed in loops."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = find_tokens(text)
        self._at = 0
        self._next = self._tokens[0]
        self._end = 0  # of what has been taken
        self._depth = 0

    def parse(self) -> Node:
        node = self._expression()
        if self._next.kind != "end":
            raise self._unexpected()
        return node

    def _take(self) -> Token:
        token = self._next
        self._at += 1
        self._next = self._tokens[self._at]
        self._end = token.end
        return token

    def _took(self, sign: str) -> bool:
        found = self._next.text == sign
        if found:
            self._take()
        return found

    def _expect(self, sign: str) -> None:
        if not self._took(sign):
            raise self._unexpected()

    def _open(self, bracket: str) -> None:
        if self._depth == MAX_DEPTH:
            raise ConditionSyntaxError(f"brackets are nested more than {MAX_DEPTH} deep", self._next.start)
        self._expect(bracket)
        self._depth += 1

    def _close(self, bracket: str) -> None:
        self._expect(bracket)
        self._depth -= 1

    def _unexpected(self) -> ConditionSyntaxError:
        kind, text, at, _ = self._next
        if kind == "end":
            return ConditionSyntaxError("the condition ends too early", at)
        if kind == "wrong" and text in "\"'":
            return ConditionSyntaxError("this string is never closed", at)
        return ConditionSyntaxError(f"{self._text[at]!r} is not expected here", at)

    def _span(self, start: int) -> Span:
        return Span(start, self._end)

    def _expression(self) -> Node:
        start = self._next.start
        node = self._operation(1)
        before: list[tuple[int, Node, Node]] = []
        while self._took("?"):
            then = self._operation(1)
            self._expect(":")
            before.append((start, node, then))
            start = self._next.start
            node = self._operation(1)
        for start, when, then in reversed(before):
            node = Conditional(when, then, node, self._span(start))
        return node

    def _operation(self, power: int) -> Node:
        """Operands joined by operators that bind at least so strongly."""
        start = self._next.start
        node = self._unary()
        while (own := _POWERS.get(sign := self._next.text, 0)) >= power:
            if sign in ("||", "&&"):
                parts = [node]
                while self._took(sign):
                    parts.append(self._operation(own + 1))
                node = Logical(sign, tuple(parts), self._span(start))
            else:
                self._take()
                right = self._operation(own + 1)
                node = Binary(sign, node, right, self._span(start))
        return node

    def _unary(self) -> Node:
        signs: list[Token] = []
        while self._next.text in ("!", "-") and not self._is_negative_number():
            signs.append(self._take())
        node = self._member()
        for sign in reversed(signs):
            node = Unary(sign.text, node, self._span(sign.start))
        return node

    def _is_negative_number(self) -> bool:
        sign, behind = self._next, self._tokens[self._at + 1]
        return sign.text == "-" and behind.kind in ("int", "double") and behind.start == sign.end

    def _member(self) -> Node:
        start = self._next.start
        node = self._primary()
        while True:
            match self._next.text:
                case ".":
                    self._take()
                    name = self._name()
                    if self._next.text == "(":
                        node = Call(node, name, self._list("(", ")"), self._span(start))
                    else:
                        node = Field(node, name, self._span(start))
                case "[":
                    self._open("[")
                    by = self._expression()
                    self._close("]")
                    node = Index(node, by, self._span(start))
                case "{":
                    node = Unsupported("a message", (node, *self._pairs()), self._span(start))
                case _:
                    return node

    def _name(self) -> str:
        if self._next.kind != "name" or self._next.text in _KEYWORDS:
            raise self._unexpected()
        return self._take().text

    def _primary(self) -> Node:
        token = self._next
        match token.kind, token.text:
            case "string", _:
                self._take()
                if is_bytes(token):
                    return Unsupported("bytes", (), self._span(token.start))
                return Literal(decode_string(token), self._span(token.start))
            case ("int" | "double", _) | (_, "-"):
                return self._number()
            case "name", name if name in _CONSTANTS:
                self._take()
                return Literal(_CONSTANTS[name], self._span(token.start))
            case _, "(":
                self._open("(")
                node = self._expression()
                self._close(")")
                return node
            case _, "[":
                return ListLiteral(self._list("[", "]"), self._span(token.start))
            case _, "{":
                return Unsupported("a map", self._pairs(), self._span(token.start))
            case _, ".":
                self._take()
                self._name()
                arguments = self._list("(", ")") if self._next.text == "(" else ()
                return Unsupported("a name with a leading dot", arguments, self._span(token.start))
            case _:
                name = self._name()
                if self._next.text == "(":
                    return Call(None, name, self._list("(", ")"), self._span(token.start))
                return Name(name, self._span(token.start))

    def _number(self) -> Node:
        start = self._next.start
        sign = "-" if self._took("-") else ""
        if self._next.kind not in ("int", "double"):
            raise self._unexpected()
        kind, digits, *_ = self._take()
        text, span = sign + digits, self._span(start)
        if len(digits) > _DIGITS:
            raise ConditionSyntaxError("a whole number has at most 64 bits" if kind == "int" else "too long", start)
        if kind == "double":
            return Literal(float(text), span)
        if text[-1] in "uU":
            return Unsupported("an unsigned number", (), span)
        number = int(text, 16 if "x" in text else 10)
        if not -(2**63) <= number < 2**63:
            raise ConditionSyntaxError("a whole number has at most 64 bits", start)
        return Literal(number, span)

    def _list(self, opening: str, closing: str) -> tuple[Node, ...]:
        self._open(opening)
        found: list[Node] = []
        if self._next.text != closing:
            found.append(self._expression())
            while self._took(","):
                found.append(self._expression())
        self._close(closing)
        return tuple(found)

    def _pairs(self) -> tuple[Node, ...]:
        """What stands in the braces of a map or a message."""
        self._open("{")
        found: list[Node] = []
        while self._next.text != "}" or found:
            found.append(self._expression())
            self._expect(":")
            found.append(self._expression())
            if not self._took(","):
                break
        self._close("}")
        return tuple(found)

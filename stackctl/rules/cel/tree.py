"""A condition as groups and conditions, to be drawn; and conditions built from such parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from typing import Literal as OneOf

from stackctl.core.errors import UsageError
from stackctl.rules.cel.nodes import Conditional, Logical, Node, Unary
from stackctl.rules.cel.parse import ConditionSyntaxError, parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class Leaf:
    """One comparison or call, as CEL."""

    cel: str


@dataclass(frozen=True)
class Branch:
    """`all`: every part holds; `any`: one does; `not`: its only part does not."""

    kind: OneOf["all", "any", "not"]
    parts: tuple[Tree, ...]


Tree: TypeAlias = Leaf | Branch


def parse_tree(condition: str) -> Tree:
    """The tree of a condition. Raises ConditionSyntaxError."""
    return _to_tree(condition, parse(condition))


def _to_tree(text: str, node: Node) -> Tree:
    match node:
        case Logical(operator=sign, parts=parts):
            return Branch("all" if sign == "&&" else "any", tuple(_to_tree(text, part) for part in parts))
        case Unary(operator="!", of=of):
            return Branch("not", (_to_tree(text, of),))
        case Conditional(span=span):
            return Leaf(f"({text[span.start : span.end]})")
        case _:
            return Leaf(text[node.span.start : node.span.end])


def to_condition(tree: Tree) -> str:
    """The tree as CEL; `read` makes the same tree of it."""
    match tree:
        case Leaf(cel=cel):
            return cel
        case Branch(kind="not", parts=(Branch(kind="not") as part,)):
            return f"!{to_condition(part)}"
        case Branch(kind="not", parts=(part,)):
            return f"!({to_condition(part)})"
        case Branch(kind=kind, parts=parts):
            return (" && " if kind == "all" else " || ").join(
                f"({to_condition(part)})" if isinstance(part, Branch) and part.kind != "not" else to_condition(part)
                for part in parts
            )


def join_conditions(where: Sequence[str], alternatives: Sequence[str]) -> str:
    """`(where && where …) || alternative || …`. Raises UsageError, which names the part that is wrong."""
    together = [_parse_part(text, "--where") for text in where]
    first = together[0] if len(together) == 1 else Branch("all", tuple(together))
    if not alternatives:
        return to_condition(first)
    return to_condition(Branch("any", (first, *(_parse_part(text, "--or") for text in alternatives))))


def _parse_part(text: str, option: str) -> Tree:
    from stackctl.rules.cel.parse import to_line_and_column

    try:
        return parse_tree(text)
    except ConditionSyntaxError as error:
        _, column = to_line_and_column(text, error.at)
        raise UsageError(f"{option} {text!r}: column {column}: {error.reason}", code="usage") from None


def draw_tree(tree: Tree, before: str = "") -> Iterator[str]:
    """One line for each group and condition."""
    match tree:
        case Leaf(cel=cel):
            yield before + " ".join(cel.split())
        case Branch(kind=kind, parts=parts):
            yield before + {"all": "all of", "any": "any of", "not": "not"}[kind]
            indent = before.replace("├─ ", "│  ").replace("└─ ", "   ")
            for number, part in enumerate(parts, 1):
                yield from draw_tree(part, indent + ("└─ " if number == len(parts) else "├─ "))


def to_document(tree: Tree) -> Any:
    """As JSON: a text for a condition, `{"all"|"any": […]}` or `{"not": …}` for a group."""
    match tree:
        case Leaf(cel=cel):
            return cel
        case Branch(kind="not", parts=(part,)):
            return {"not": to_document(part)}
        case Branch(kind=kind, parts=parts):
            return {kind: [to_document(part) for part in parts]}


def from_document(value: Any) -> Tree:
    """The tree of such JSON; a text that is itself a group becomes one.

    Raises ValueError, whose message says what is expected.
    """
    tree = _from_document(value)
    try:
        parse(to_condition(tree))
    except ConditionSyntaxError as error:
        raise ValueError(f"no condition may be as large as this tree: {error.reason}") from None
    return tree


def _from_document(value: Any) -> Tree:
    match value:
        case str():
            try:
                value.encode()
                # Not the text itself: a comment at its end would swallow whatever is written behind it.
                return parse_tree(value)
            except UnicodeEncodeError:
                raise ValueError(f"{value!r} is not text") from None
            except ConditionSyntaxError as error:
                raise ValueError(f"{value!r}: {error.reason}") from None
        case {"not": inner} if len(value) == 1:
            return Branch("not", (_from_document(inner),))
        case {"all": [_, _, *_] as parts} | {"any": [_, _, *_] as parts} if len(value) == 1:
            return Branch("all" if "all" in value else "any", tuple(_from_document(part) for part in parts))
        case _:
            raise ValueError(
                'a tree is a condition as text, {"all": […]}, {"any": […]} with two or more, or {"not": …}'
            )

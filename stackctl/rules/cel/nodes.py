"""The parts of a condition's tree, which is small and of bounded depth, so that whatever walks it may recurse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Span(NamedTuple):
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
    parts: tuple[Node, ...]
    span: Span


Node: TypeAlias = (
    Literal | Name | Field | Index | Call | ListLiteral | Logical | Binary | Unary | Conditional | Unsupported
)


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it, in order of place."""
    left = [node]
    while left:
        node = left.pop()
        yield node
        left += children(node)[::-1]


# By type: as a `match`, it was a fifth of what `check` takes.
_CHILDREN: dict[type[Node], Callable[[Any], tuple[Node, ...]]] = {
    Literal: lambda node: (),
    Name: lambda node: (),
    Field: lambda node: (node.of,),
    Unary: lambda node: (node.of,),
    Index: lambda node: (node.of, node.by),
    Call: lambda node: node.arguments if node.of is None else (node.of, *node.arguments),
    ListLiteral: lambda node: node.items,
    Logical: lambda node: node.parts,
    Binary: lambda node: (node.left, node.right),
    Conditional: lambda node: (node.when, node.then, node.otherwise),
    Unsupported: lambda node: node.parts,
}


def children(node: Node) -> tuple[Node, ...]:
    return _CHILDREN[type(node)](node)

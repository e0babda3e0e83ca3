"""What a condition may cost that only the reference evaluates: macros multiply, and its own parser is slow.

As Kubernetes does, the most that can come is estimated before anything runs, from the text alone: lists that have
no name come from nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.rules.cel.nodes import Binary, Call, ListLiteral, Literal, Name, Node, Unsupported, children
from stackctl.rules.cel.tokens import ConditionSyntaxError
from stackctl.rules.model import Context

if TYPE_CHECKING:
    from collections.abc import Mapping

MACROS = ("all", "exists", "exists_one", "map", "filter")
MAX_STEPS = 20_000  # about half a second of the reference's for one user
MAX_LENGTH = 5_000  # characters
_UNIT = 100  # characters of a text that count as one item
_FIELDS = Context().fields()
_FIELD = 4  # units: an address has at most 320 characters


def refuse_costly(condition: str, tree: Node) -> None:
    """Raises ConditionSyntaxError for what would take the reference more than about a second."""
    if len(condition) > MAX_LENGTH:
        what = f"a condition with macros, conversions, maps or bytes has at most {MAX_LENGTH:,} characters"
        raise ConditionSyntaxError(what, 0)
    steps, _ = _estimate(tree, {})
    _refuse_above_limit(steps, tree)


def _estimate(node: Node, weights: Mapping[str, int]) -> tuple[int, int]:
    """Steps, and the weight of what comes out: the items in it, and in these. `weights`: of the macros' variables."""
    match node:
        case Literal(value=value):
            return 1, 1 + (len(value) // _UNIT if isinstance(value, str) else 0)
        case Name(name=name):
            return 1, weights.get(name, _FIELD if name in _FIELDS else MAX_STEPS)
        case Call(of=of, name=name, arguments=(Name(name=variable), *bodies)) if of is not None and name in MACROS:
            steps, weight = _estimate(of, weights)
            found = [_estimate(body, {**weights, variable: weight}) for body in bodies]
            steps += weight * sum(own for own, _ in found)
            _refuse_above_limit(steps, node)
            return steps, {"map": weight * max((own for _, own in found), default=1), "filter": weight}.get(name, 1)
        case Binary(operator="in", left=left, right=Name(name=name)) if name not in weights:  # a list by its name
            return 1 + _estimate(left, weights)[0], 1
    below = [_estimate(child, weights) for child in children(node)]
    weight = sum(own for _, own in below)
    steps = 1 + sum(own for own, _ in below)
    if isinstance(node, Binary):
        return steps + weight, weight if node.operator == "+" else 1
    return steps, weight if isinstance(node, ListLiteral | Unsupported) else max(weight, 1)


def _refuse_above_limit(steps: int, node: Node) -> None:
    if steps > MAX_STEPS:
        what = f"this may take {steps:,} steps, as macros within macros multiply; {MAX_STEPS:,} are the most"
        raise ConditionSyntaxError(what, node.span.start)

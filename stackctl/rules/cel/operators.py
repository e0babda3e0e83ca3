"""What stands for each of CEL's binary operators."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from stackctl.rules.cel.values import EvaluationError, NamedList, describe_kind, is_int, is_number

if TYPE_CHECKING:
    from collections.abc import Callable

_BITS = 2**63


# -- comparison


def is_equal(left: Any, right: Any) -> bool:
    """CEL's equality: numbers by value, other kinds only among themselves."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(is_equal, left, right))
    return left == right


def _comparison(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def value(left: Any, right: Any) -> bool:
        numbers = is_number(left) and is_number(right)
        if not numbers and not (type(left) is type(right) and isinstance(left, str | bool)):
            raise EvaluationError(f"{describe_kind(left)} and {describe_kind(right)} have no order")
        return compare(left, right)

    return value


def _in(left: Any, right: Any) -> bool:
    if isinstance(right, NamedList):
        return isinstance(left, str) and left in right.entries
    if isinstance(right, list):
        return any(is_equal(left, item) for item in right)
    if isinstance(right, dict):
        return any(is_equal(left, key) for key in right)
    raise EvaluationError(f"nothing is in {describe_kind(right)}: in takes a list")


# -- arithmetic, in 64 bits


def to_int64(value: int) -> int:
    if not -_BITS <= value < _BITS:
        raise EvaluationError("the number does not fit into 64 bits")
    return value


def _arithmetic(sign: str, ints: Callable[[int, int], int], floats: Callable[[float, float], float] | None) -> Any:
    def value(left: Any, right: Any) -> Any:
        if is_int(left) and is_int(right):
            return to_int64(ints(left, right))
        if floats is not None and isinstance(left, float) and isinstance(right, float):
            return floats(left, right)
        if sign == "+" and type(left) is type(right) and isinstance(left, str | list):
            return left + right
        raise EvaluationError(f"{describe_kind(left)} {sign} {describe_kind(right)} is not possible")

    return value


def _divide(left: int, right: int) -> int:
    if right == 0:
        raise EvaluationError("division by zero")
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _remainder(left: int, right: int) -> int:
    return left - right * _divide(left, right)


def _divide_floats(left: float, right: float) -> float:
    if right:
        return left / right
    return float("nan") if left == 0 or left != left else float("inf") if left > 0 else float("-inf")


# What stands for each operator.
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "==": is_equal, "!=": lambda left, right: not is_equal(left, right), "in": _in,
    "<": _comparison(operator.lt), "<=": _comparison(operator.le),
    ">": _comparison(operator.gt), ">=": _comparison(operator.ge),
    "+": _arithmetic("+", operator.add, operator.add), "-": _arithmetic("-", operator.sub, operator.sub),
    "*": _arithmetic("*", operator.mul, operator.mul), "/": _arithmetic("/", _divide, _divide_floats),
    "%": _arithmetic("%", _remainder, None),
}  # fmt: skip

"""Requests held against the SDK's own TypedDicts, as Stripe holds them against its own list of parameters."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, NotRequired, Required, Union

import stripe.params
from stripe._request_options import RequestOptions

from stackctl.payments.stand_in.errors import Refused


class _Untyped:
    """The SDK's name for a mapping of anything."""

    def __class_getitem__(cls, _: Any) -> Any:
        return dict[str, str]


_NAMES: dict[str, Any] = {"StripeContext": str, "UntypedStripeObject": _Untyped, "Mapping": Mapping}
_OPTIONS = frozenset(RequestOptions.__annotations__)


def checked(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with their types. Raises Refused for an unknown one, a bad choice, or what is no whole number."""
    return _mapping(getattr(stripe.params, name), params, "")


@lru_cache
def _fields(cls: Any) -> dict[str, Any]:
    found = typing.get_type_hints(cls, localns=_NAMES)
    return {name: hint for name, hint in found.items() if name not in _OPTIONS}


def _mapping(cls: Any, params: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    fields = _fields(cls)
    found: dict[str, Any] = {}
    for name, value in params.items():
        place = f"{prefix}[{name}]" if prefix else name
        if name not in fields:
            raise Refused(400, f"Received unknown parameter: {place}", code="parameter_unknown", param=place)
        found[name] = _value(fields[name], value, place)
    return found


def _value(hint: Any, value: Any, place: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (NotRequired, Required):
        return _value(arguments[0], value, place)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value, place)
    if origin is Literal:
        if value not in arguments:
            choices = ", ".join(str(one) for one in arguments)
            raise Refused(400, f"Invalid {place}: must be one of {choices}", param=place)
        return value
    if hint is int:
        if not isinstance(value, str) or not value.lstrip("-").isdigit():
            raise Refused(400, f"Invalid integer: {value}", code="parameter_invalid_integer", param=place)
        return int(value)
    if hint is bool:
        if value not in ("true", "false"):
            raise Refused(400, f"Invalid boolean: {value}", param=place)
        return value == "true"
    if hint is str:
        if not isinstance(value, str):
            raise Refused(400, f"Invalid string: {value}", param=place)
        return value
    if origin is list:
        items = value.values() if isinstance(value, dict) else value
        return [_value(arguments[0], item, f"{place}[{number}]") for number, item in enumerate(items)]
    if hasattr(hint, "__required_keys__"):  # a TypedDict, of typing or of typing_extensions
        if not isinstance(value, dict):
            raise Refused(400, f"Invalid hash: {place}", param=place)
        return _mapping(hint, value, place)
    return value


def _one_of(choices: tuple[Any, ...], value: Any, place: str) -> Any:
    """The SDK widens enumerations to `Literal[…] | str`; Stripe does not."""
    narrow = [one for one in choices if one is not type(None)]
    if any(typing.get_origin(one) is Literal and one != Literal[""] for one in narrow):
        narrow = [one for one in narrow if one is not str]
    first: Refused | None = None
    for one in narrow:
        try:
            return _value(one, value, place)
        except Refused as refused:
            first = first or refused
    raise first or Refused(400, f"Invalid {place}", param=place)

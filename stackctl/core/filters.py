"""Expressions of jq over the documents of --json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackctl.core.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Filter:
    """A compiled expression. Raises UsageError where it can't be compiled, ConfigError where jq is not installed."""

    def __init__(self, expression: str) -> None:
        try:
            import jq
        except ImportError as error:
            raise ConfigError(
                "--jq needs the package jq", code="missing-extra", hint="pip install 'stackctl[jq]'"
            ) from error
        try:
            self._program = jq.compile(expression)
        except ValueError as error:
            raise UsageError(
                f"--jq {expression!r}: {_first_line(error)}",
                code="usage",
                hint="an expression of jq in quotes, as '.name' or '.list[].name'; --json alone shows the document",
            ) from error

    def apply(self, document: str) -> Iterator[Any]:
        """The results for one document of JSON, as values. Raises ValueError with jq's message, in one line."""
        try:
            yield from self._program.input_text(document)
        except ValueError as error:
            raise ValueError(_first_line(error)) from error


def _first_line(error: ValueError) -> str:
    """Without what the others are for: a picture of the place, and the number of errors."""
    lines = str(error).splitlines()
    return (lines[0] if lines else "it failed").removeprefix("jq: error: ").rstrip(":")

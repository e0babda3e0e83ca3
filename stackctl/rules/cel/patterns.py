"""Patterns of `matches`: RE2, which takes linear time whatever the pattern and the text."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from stackctl.rules.cel.values import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Callable

# A text takes time for each of its characters and each part of the pattern; the memory bounds what repeats unfold to.
MAX_LENGTH = 5_000
MAX_MEMORY = 1 << 20  # bytes that a compiled pattern and its states may take


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Whether a text holds the pattern anywhere, as a function. Raises ValueError with RE2's reason."""
    import re2

    if len(pattern) > MAX_LENGTH:
        raise ValueError(f"it has {len(pattern):,} characters; {MAX_LENGTH:,} are the most")
    options = re2.Options()
    options.log_errors = False  # it would write to the terminal past us
    options.max_mem = MAX_MEMORY
    try:
        search: Any = re2.compile(pattern, options=options).search
    except re2.error as error:
        reason = error.args[0] if error.args else "it is not a pattern of RE2"
        raise ValueError(reason.decode() if isinstance(reason, bytes) else str(reason)) from None
    return lambda text: search(text) is not None


def has_match(text: str, pattern: str) -> bool:
    """The same for a pattern that is known only now; an invalid one is an error of the condition."""
    try:
        return compile_pattern(pattern)(text)
    except ValueError as error:
        raise EvaluationError(f"invalid pattern: {error}") from None

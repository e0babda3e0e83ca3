"""Files that people write in YAML, read with the line of each mistake."""

from __future__ import annotations

import difflib
import errno
import json
import re
from typing import TYPE_CHECKING, Any

import yaml

from stackctl.core.errors import ConfigError
from stackctl.core.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_NESTED = 1_000  # collections within collections that libyaml is given
MAX_UNFOLDED = 100_000  # nodes of a file whose aliases are many
_MERGE = "tag:yaml.org,2002:merge"
# What PyYAML raises for 5,000 digits, 2024-13-45, `!!bool maybe`, `!!int ""`, `!!timestamp x` and `!ours`.
_NO_VALUE = (ValueError, LookupError, AttributeError, TypeError, yaml.YAMLError)
_DEEP = re.compile(r"^[ ?-]{2000}", re.MULTILINE)


def read_text(path: Path, *, code: str, hint: str) -> str:
    """The file's text. Raises ConfigError with this code."""
    try:
        data = read_bounded(path)
    except OSError as error:
        what = str(error.strerror)
        if error.errno == errno.EFBIG:
            raise ConfigError(f"{path} is {what}", code=code, details=_to_details(str(path), [(1, what)])) from None
        raise ConfigError(f"{path} can't be read: {what}", code=code, hint=hint) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        details = _to_details(str(path), [(line, "not UTF-8")])
        raise ConfigError(
            f"{path}:{line}: not UTF-8", code=code, hint="save the file as UTF-8", details=details
        ) from error


def _to_details(name: str, mistakes: Iterable[tuple[int, str]]) -> dict[str, Any]:
    return {"findings": [{"file": name, "line": line, "message": what} for line, what in mistakes]}


def compose(text: str, loader: Any = yaml.SafeLoader) -> yaml.Node | None:
    """The document's node, as `yaml.compose` has it. Raises YAMLError also for aliases that unfold to far more than was
    written, or stand inside themselves; and RecursionError.
    """
    root = yaml.compose(text, Loader=loader)
    if root is not None and "*" in text:
        sizes: dict[int, int] = {}
        if _measure(root, sizes) > max(MAX_UNFOLDED, 10 * len(sizes)):
            raise yaml.MarkedYAMLError(
                problem="its aliases unfold to far more than is written", problem_mark=root.start_mark
            )
    return root


def _measure(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many nodes there are below, each counted wherever it is an alias; `sizes` has them by id."""
    if id(node) not in sizes:
        sizes[id(node)] = 0
        inner: Iterable[yaml.Node] = ()
        if isinstance(node, yaml.MappingNode):
            inner = (one for pair in node.value for one in pair)
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        sizes[id(node)] = 1 + sum(_measure(one, sizes) for one in inner)
    elif not sizes[id(node)]:
        raise yaml.MarkedYAMLError(problem="an alias stands inside itself", problem_mark=node.start_mark)
    return sizes[id(node)]


def construct(node: yaml.Node) -> Any:
    """The node's value, of plain types. Raises YAMLError: also for a key that is there twice, of which
    YAML's own reader takes the last, and for what stands behind a tag that it doesn't fit."""
    _refuse_repeated_keys(node)
    try:
        return yaml.SafeLoader("").construct_document(node)
    except _NO_VALUE as error:
        raise yaml.MarkedYAMLError(problem="a value can't be read", problem_mark=node.start_mark) from error


def _refuse_repeated_keys(node: yaml.Node) -> None:
    inner: Iterable[yaml.Node] = node.value if isinstance(node, yaml.SequenceNode) else ()
    if isinstance(node, yaml.MappingNode):
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} is there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        inner = [value for _, value in node.value]
    for one in inner:
        _refuse_repeated_keys(one)


def list_pairs(node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    """The pairs of a mapping, and behind them those of its merge keys (`<<`) that it does not have itself."""
    merged = [value for key, value in node.value if key.tag == _MERGE]
    if not merged:
        return node.value
    own = [pair for pair in node.value if pair[0].tag != _MERGE]
    for value in merged:
        for one in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            if not isinstance(one, yaml.MappingNode):
                own.append((value, one))  # an unknown key
                continue
            known = {key.value for key, _ in own if isinstance(key, yaml.ScalarNode)}
            own += [pair for pair in list_pairs(one) if pair[0].value not in known]
    return own


def join_surrogates(text: str) -> str:
    """The text with whole characters for the pairs of surrogates that JSON spells them with; YAML reads each half.

    Raises ValueError for half of a pair."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def untab_json(text: str) -> str:
    """JSON that is set in with tabs, with blanks for them: YAML takes none there, and no place in the text moves."""
    if "\t" not in text or not text.lstrip().startswith("{"):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text.replace("\t", " ")  # none stands in a text: JSON spells it \\t there


class Reader:
    """Reads nodes into values, and remembers every mistake with its line, to be told at once."""

    def __init__(self) -> None:
        self.mistakes: list[tuple[int, str]] = []

    def compose(self, text: str) -> yaml.Node | None:
        """The document's node; None for an empty text, and for one that is no YAML (a mistake)."""
        text = untab_json(text)
        for loader in dict.fromkeys((choose_loader(text), yaml.SafeLoader)):
            try:
                return compose(text, loader)
            except yaml.YAMLError as error:
                if loader is yaml.SafeLoader:  # whose messages and places are the better ones
                    mark = getattr(error, "problem_mark", None)
                    self.mistakes.append((mark.line + 1 if mark else 1, getattr(error, "problem", None) or "not YAML"))
            except RecursionError:
                self.mistakes.append((1, "nested too deeply"))
        return None

    def to_error(self, name: str, *, code: str, hint: str) -> ConfigError:
        """All mistakes as one error; `name` is the file's."""
        mistakes = sorted(self.mistakes)
        return ConfigError(
            [f"{name}:{line}: {what}" for line, what in mistakes],
            code=code,
            hint=hint,
            details=_to_details(name, mistakes),
        )

    def read_pairs(self, node: yaml.Node, what: str) -> Iterable[tuple[yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            self.add_mistake(node, f"{what} is a mapping of keys, not {describe_shape(node)}")
            return
        seen: set[str] = set()
        for key, value in list_pairs(node):
            if not isinstance(key, yaml.ScalarNode):
                self.add_mistake(key, f"a key of {what} is a word")
            elif key.value in seen:
                self.add_mistake(key, f"{what}: {key.value} is there twice")
            else:
                seen.add(key.value)
                yield key, value

    def read_mapping(self, node: yaml.Node, what: str, known: tuple[str, ...]) -> dict[str, yaml.Node]:
        found: dict[str, yaml.Node] = {}
        for key, value in self.read_pairs(node, what):
            if key.value not in known:
                near = difflib.get_close_matches(str(key.value), known, n=1)
                meant = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
                self.add_mistake(key, f"{what} has no key {key.value}{meant}")
            elif not is_null(value):
                found[key.value] = value
        return found

    def read_choice(self, node: yaml.Node | None, what: str, known: tuple[str, ...], default: str) -> str:
        if node is None:
            return default
        if isinstance(node, yaml.ScalarNode) and node.value in known:
            return node.value
        shown = str(node.value) if isinstance(node, yaml.ScalarNode) else describe_shape(node)
        near = difflib.get_close_matches(shown, known, n=1)
        meant = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
        self.add_mistake(node, f"{what}: {shown} is unknown; {meant}")
        return default

    def read_string(self, node: yaml.Node | None, what: str) -> str | None:
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode):
            self.add_mistake(node, f"{what} is text, not {describe_shape(node)}")
            return None
        if "\0" in node.value:
            self.add_mistake(node, f"{what} holds a NUL character")
            return None
        try:
            return join_surrogates(str(node.value))
        except ValueError:
            self.add_mistake(node, f"{what} holds half a character (a lone surrogate)")
            return None

    def read_boolean(self, node: yaml.Node | None, what: str) -> bool:
        if node is None:
            return True
        value = to_scalar(node)
        if not isinstance(value, bool):
            self.add_mistake(node, f"{what} is true or false")
            return True
        return value

    def add_mistake(self, node: yaml.Node, what: str) -> None:
        self.mistakes.append((node.start_mark.line + 1, what))


def choose_loader(text: str) -> Any:
    """libyaml's where there is one, which is ten times as fast; but it overflows the stack when nested too deeply."""
    quick = getattr(yaml, "CSafeLoader", None)
    return yaml.SafeLoader if quick is None or _DEEP.search(text) or _is_deep(text, quick) else quick


def _is_deep(text: str, loader: Any) -> bool:
    """Whether its collections in brackets nest too deeply: by their number, or else by libyaml's own events."""
    depth = 0
    if text.count("[") + text.count("{") <= MAX_NESTED:
        return False
    try:
        for event in yaml.parse(text, loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_NESTED:
                return True
    except yaml.YAMLError:  # which the other one says better
        return True
    return False


def to_scalar(node: yaml.Node) -> Any:
    """The value of a scalar; None for anything else, and for what is not what its tag or its form says."""
    try:
        return yaml.constructor.SafeConstructor().construct_object(node) if isinstance(node, yaml.ScalarNode) else None
    except _NO_VALUE:
        return None


def is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def describe_shape(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"

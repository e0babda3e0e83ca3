"""The one natural direction of imports (docs/architecture.md), held by reading every module's source.

Imports inside functions count. Those under `if TYPE_CHECKING:` do not: they are gone when the program runs.
"""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import stackctl

PACKAGE = Path(stackctl.__file__).parent

# The rooms, each with the rooms it may import. Whatever is not listed is refused, so that a new room has to be given
# its place here. Features never import each other: what two of them need has a room below both.
CORE = {"core"}
CONFIG = CORE | {"config"}
POSTGRES = CONFIG | {"postgres"}
BACKEND = POSTGRES | {"backend"}
MAPPING = BACKEND | {"mapping"}
ALLOWED: dict[str, set[str]] = {
    "core": CORE,
    "config": CONFIG,
    "postgres": POSTGRES,
    "backend": BACKEND,
    "mapping": POSTGRES | {"mapping"},
    "sync": MAPPING | {"sync"},
    "migrate": BACKEND | {"migrate"},
    "rules": BACKEND | {"rules"},
    "payments": BACKEND | {"payments"},
}
FEATURES = {"sync", "migrate", "rules", "payments"}
# `cli` and `server` may import anything; nothing but __main__ imports the one, and nothing but `cli` the other.
EDGES = {"cli", "server", "__init__", "__main__"}

FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in FILES}


def name_of(path: Path) -> str:
    """`stackctl/sync/queue/entries.py` → `sync.queue.entries`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def room(module: str) -> str:
    return module.split(".")[0]


class _Imports(ast.NodeVisitor):
    def __init__(self, package: list[str]) -> None:
        self.package = package
        self.found: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level:
            base = ".".join([*self.package[: len(self.package) - node.level + 1], *filter(None, [node.module])])
        else:
            base = node.module or ""
        self.found |= {f"{base}.{alias.name}" for alias in node.names}

    def visit_Call(self, node: ast.Call) -> None:
        # importlib.import_module("stackctl.x"), as far as the name is written down.
        if ast.unparse(node.func).endswith("import_module") and node.args and isinstance(node.args[0], ast.Constant):
            self.found.add(str(node.args[0].value))
        self.generic_visit(node)


def imports(source: str, path: Path) -> set[str]:
    """Every dotted name that the source imports; `from a import b` gives `a.b`."""
    visitor = _Imports(["stackctl", *path.relative_to(PACKAGE).parent.parts])
    visitor.visit(ast.parse(source))
    return visitor.found


def imported_modules(path: Path) -> set[str]:
    """Of what a file imports, our own modules by their dotted names; a package stands for its `__init__`."""
    found: set[str] = set()
    for name in imports(path.read_text(encoding="utf-8"), path):
        if room(name) != "stackctl":
            continue
        inner = name.split(".")[1:]
        while inner and ".".join(inner) not in MODULES and ".".join([*inner, "__init__"]) not in MODULES:
            inner.pop()
        dotted = ".".join(inner)
        found.add(dotted if dotted in MODULES else ".".join([*inner, "__init__"]))
    return found - {name_of(path)}


def cycle(graph: dict[str, set[str]]) -> str:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " → ".join(reversed(error.args[1]))
    return ""


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_module_imports_only_what_lies_below_its_room(path: Path) -> None:
    own = room(name_of(path))
    found = {room(name) for name in imported_modules(path)}
    assert "cli" not in found or own in ("cli", "__main__"), "nothing imports the command line"
    assert "server" not in found or own in ("cli", "server"), "nothing below the edges imports the server"
    if own not in EDGES:
        assert own in ALLOWED, f"{own} has no place in the layout: give it one in ALLOWED"
        assert found <= ALLOWED[own] | {"__init__"}, f"{name_of(path)} may not import {sorted(found - ALLOWED[own])}"


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = {name: imported_modules(path) for name, path in MODULES.items()}
    assert cycle(graph) == ""


@pytest.mark.parametrize("parent", ["sync", "migrate", "rules", "payments", "mapping", "cli"])
def test_no_room_imports_itself_by_way_of_others(parent: str) -> None:
    """The folders of a room count as rooms, too: their files stand for one another here."""

    def place(name: str) -> str:
        parts = name.split(".")
        return ".".join(parts[:2]) if len(parts) > 2 and parts[0] == parent else name

    graph: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        if room(name) == parent:
            own = place(name)
            inside = {place(other) for other in imported_modules(path) if room(other) == parent}
            graph.setdefault(own, set()).update(inside - {own})
    assert cycle(graph) == ""


def test_packages_hold_no_code_and_import_nothing() -> None:
    """A name is imported from the module that defines it: there are no second spellings."""
    for path in PACKAGE.rglob("__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        code = [node for node in body if not isinstance(node, ast.Expr)]
        assert path.parent == PACKAGE or not code, path


@pytest.mark.parametrize(
    "path", [p for p in FILES if room(name_of(p)) not in EDGES and name_of(p) != "core.console"], ids=name_of
)
def test_nothing_below_the_command_line_prints_prompts_or_exits(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "input", "exit", "quit", "sys.exit", "os._exit", "getpass.getpass"), (
                f"{name_of(path)}:{node.lineno} calls {called}"
            )
            assert not called.startswith(("sys.stdout.", "sys.stderr.", "typer.")), f"{name_of(path)}:{node.lineno}"
        if isinstance(node, ast.Raise) and node.exc is not None:
            assert not ast.unparse(node.exc).startswith("SystemExit"), f"{name_of(path)}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_gateway_knows_stripe_and_only_the_command_line_knows_typer(path: Path) -> None:
    packages = {room(name) for name in imports(path.read_text(encoding="utf-8"), path)}
    # The stand-in reads the SDK's lists of parameters, and calls nothing.
    assert "stripe" not in packages or name_of(path) in ("payments.gateway", "payments.stand_in.validate")
    assert "typer" not in packages or room(name_of(path)) == "cli"
    assert "click" not in packages, "typer carries its own"
    drawing = ("core.console", "core.progress", "core.screen", "core.folding")
    assert "rich" not in packages or name_of(path) in drawing or room(name_of(path)) == "cli"


def test_features_do_not_import_each_other_by_these_very_rules() -> None:
    for feature in FEATURES:
        assert not ALLOWED[feature] & ((FEATURES - {feature}) | EDGES)


def test_a_circle_would_be_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != ""
    assert cycle({"a": {"b", "c"}, "b": {"c"}}) == ""


def test_the_reader_sees_every_way_to_import() -> None:
    source = """
from __future__ import annotations
import stackctl.cli.app
from stackctl import rules
from . import watch
from ...payments.gateway import Gateway
if TYPE_CHECKING:
    from stackctl.core.console import Console
else:
    from stackctl.postgres.embedded import attach
def late():
    from stackctl.migrate.files import read
    importlib.import_module("stackctl.cli.commands")
"""
    found = imports(source, PACKAGE / "sync" / "engine" / "database.py")
    assert {name for name in found if room(name) == "stackctl"} == {
        "stackctl.cli.app",
        "stackctl.rules",
        "stackctl.sync.engine.watch",
        "stackctl.payments.gateway.Gateway",
        "stackctl.postgres.embedded.attach",
        "stackctl.migrate.files.read",
        "stackctl.cli.commands",
    }


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_one_module_opens_connections(path: Path) -> None:
    """All others go through it: it decides what the environment may add."""
    openers = {
        "psycopg.connect",
        "psycopg.Connection.connect",
        "Connection.connect",
        "PGconn.connect_start",
        "PGconn.ping",
    }
    found = {
        name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func).removeprefix("pq.")) in openers
    }
    assert not found or name_of(path) == "postgres.libpq"


# Beside the console: the version, the help, what a shell completes, the process's streams, and one question.
SPEAKERS = {
    "core.console": None,
    "core.progress": {"rich"},  # the bar; its sentences go through the console
    "core.screen": None,
    "core.streams": None,
    "__main__": {"sys.stdout"},
    "cli.tree": {"sys.stdout"},
    "cli.app": {"sys.stdout"},
    "cli.completion.values": {"sys.stdout"},
    "cli.command": {"typer.confirm"},
    "core.folding": {"rich"},  # how wide a character is
}
SPEECH = re.compile(
    r"\bprint\(|sys\.(?:stdout|stderr)|typer\.(?:echo|secho|prompt|confirm)|(?<=from )rich|(?<=import )rich"
)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_is_printed_past_the_console(path: Path) -> None:
    """There alone values are made harmless."""
    allowed = SPEAKERS.get(name_of(path), set())
    if allowed is not None:
        assert set(SPEECH.findall(path.read_text(encoding="utf-8"))) == allowed

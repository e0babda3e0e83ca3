"""The one natural direction of imports, held by reading every module's source.

Imports inside functions count. Those under `if TYPE_CHECKING:` do not: they are gone when the program runs.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import stackctl

PACKAGE = Path(stackctl.__file__).parent

# What each module or package at the top level may import of ours. Whatever is not listed is refused, so that a new
# module has to be given its place here.
BASE = {"errors", "redaction", "durations", "bundled", "sql"}
CORE = BASE | {"settings", "configfile", "embedded", "db", "console", "tenancy_config", "yamlfile"}
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "errors": set(),
    "redaction": set(),
    "durations": set(),
    "bundled": set(),
    "sql": set(),
    "backend_schema": set(),
    "schema_drift": BASE | {"backend_schema"},
    "settings": BASE | {"configfile"},
    "configfile": BASE | {"settings"},
    "pgbinaries": BASE,
    "embedded_url": BASE,
    "embedded": BASE | {"settings", "pgbinaries"},
    "db": BASE | {"settings", "embedded", "embedded_url"},
    "console": BASE,
    "yamlfile": BASE,
    "tenancy_config": BASE | {"db", "settings"},
    "migrate": CORE - {"console"},
    "mapping": CORE - {"console"},
    "sync": CORE - {"console"} | {"mapping"},
    "rules": CORE - {"console"},
    "payments": CORE - {"console"},
    "users": CORE - {"console"},
    "__main__": {"__init__", "cli"},
}
FEATURES = {"migrate", "sync", "rules", "payments"}
# `cli` may import anything; the demo and the doctor run features side by side, as a command would.
FREE = {"cli", "demo", "doctor"}

FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """`stackctl/sync/queue.py` → `sync.queue`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def top(module: str) -> str:
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


def ours(names: set[str]) -> set[str]:
    """Of the imported names, those of ours, by their module at the top level."""
    inside = {name.split(".")[1] if "." in name else "__init__" for name in names if top(name) == "stackctl"}
    return {name if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists() else "__init__" for name in inside}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_module_imports_only_what_lies_below_it(path: Path) -> None:
    module = top(name_of(path))
    found = ours(imports(path.read_text(encoding="utf-8"), path)) - {module}
    if module == "cli":
        return
    assert "cli" not in found or module == "__main__", "nothing imports the command line"
    if module not in FREE:
        assert module in ALLOWED, f"{module} has no place in the layout: give it one in ALLOWED"
        assert found <= ALLOWED[module], f"{name_of(path)} may not import {sorted(found - ALLOWED[module])}"


@pytest.mark.parametrize(
    "path", [p for p in FILES if top(name_of(p)) not in FREE | {"__main__", "console"}], ids=name_of
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
    packages = {top(name) for name in imports(path.read_text(encoding="utf-8"), path)}
    assert "stripe" not in packages or name_of(path).startswith("payments.gateway")
    assert "typer" not in packages or top(name_of(path)) == "cli"
    assert "click" not in packages, "typer carries its own"
    assert "rich" not in packages or top(name_of(path)) in ("console", "cli", "demo")


def test_features_do_not_import_each_other_by_these_very_rules() -> None:
    for feature in FEATURES:
        assert not ALLOWED[feature] & (FEATURES | FREE)


def test_the_reader_sees_every_way_to_import() -> None:
    source = """
from __future__ import annotations
import stackctl.cli.app
from stackctl import rules
from . import queue
from ..payments.gateway import Gateway
if TYPE_CHECKING:
    from stackctl.console import Console
else:
    from stackctl.embedded import parse
def late():
    from stackctl.migrate.files import read
    importlib.import_module("stackctl.demo")
"""
    found = imports(source, PACKAGE / "sync" / "engine.py")
    assert {name for name in found if top(name) == "stackctl"} == {
        "stackctl.cli.app",
        "stackctl.rules",
        "stackctl.sync.queue",
        "stackctl.payments.gateway.Gateway",
        "stackctl.embedded.parse",
        "stackctl.migrate.files.read",
        "stackctl.demo",
    }

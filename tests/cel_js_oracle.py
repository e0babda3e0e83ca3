"""The backend's evaluator of sign-up rules (cel-js, run by Node), to ask what it makes of conditions and ids."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_HERE = Path(__file__).parent / "cel_js"
_INSTALL = "npm ci --prefix tests/cel_js"


def ask(questions: Iterable[Mapping[str, Any]]) -> list[Any]:
    """The answers of evaluate.mjs. Without Node or cel-js the test is skipped, and fails under CI."""
    node = shutil.which("node")
    if node is None:
        _give_up("Node is not installed (Debian: apt-get install nodejs npm)")
    if not (_HERE / "node_modules" / "cel-js").is_dir():
        _give_up(f"cel-js is not installed ({_INSTALL})")
    text = "".join(json.dumps(question) + "\n" for question in questions)
    done = subprocess.run(
        [node, str(_HERE / "evaluate.mjs")], input=text, capture_output=True, text=True, check=True, timeout=600
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _give_up(why: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)

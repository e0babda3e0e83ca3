"""The wheel: what is in it, and that it works without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stackctl.core.bundled import find_bundled

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)], cwd=ROOT, check=True)
    return next(out.glob("*.whl"))


def test_the_bundled_data_travels_inside(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("migrations", "mappings", "completions"):
        files = {path.name for path in find_bundled(folder).iterdir() if path.is_file()}
        assert files
        assert {f"stackctl/_data/{folder}/{name}" for name in files} <= names
    assert "stackctl/py.typed" in names
    ours = [path for kind in ("sql", "html", "css", "js", "svg") for path in (ROOT / "stackctl").rglob(f"*.{kind}")]
    assert {str(path.relative_to(ROOT)) for path in ours} <= names
    assert not any(name.startswith(("tests/", "bench/", "docs/")) for name in names)


def test_it_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-m", "stackctl", "mappings", "list", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    files = {mapping["file"] for mapping in json.loads(done.stdout)["mappings"]}
    assert len(files) == 11
    assert all(file.startswith(str(tmp_path / "site")) for file in files)


def test_the_top_level_is_as_laid_out() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {line.split("/")[0] for line in tracked.splitlines()}
    assert {name for name in top if not name.startswith(".")} == {
        *("stackctl", "migrations", "mappings", "completions", "tests", "bench", "docs"),
        *("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "SECURITY.md"),
    }

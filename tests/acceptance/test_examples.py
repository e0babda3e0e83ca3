"""The first example of every help page and doc page, run in the folder that `stackctl demo` leaves."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stackctl.cli.commands import COMMANDS
from stackctl.cli.start.demo_tour import DEMO_FILES
from stackctl.cli.tree import load_command
from tests import forked

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
# Where the shell would write; a remark behind the command.
_NOT_OURS = re.compile(r"\s(>>?|\|)\s.*|\s+#.*")
# Made the folder; and what a page says about other things than the command.
LEFT_OUT = {"stackctl demo"}


def pages() -> Iterator[tuple[str, str]]:
    """Each help page and doc page that has examples, and its first one."""

    def below(name: str, command: Any) -> Iterator[tuple[str, str]]:
        yield f"{name} --help", command.epilog.replace("\\\n", "").splitlines()[0]
        for inner in command.commands if hasattr(command, "commands") else ():
            yield from below(f"{name} {inner}", command.get_command(None, inner))

    for name in COMMANDS:
        yield from below(name, load_command(name))
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        if lines := read_examples(path):
            yield path.name, lines[0]


def read_examples(page: Path) -> list[str]:
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in re.findall(r"^(?:\$ )?(stackctl .*)", block, re.MULTILINE)]


FIRST = [(page, line) for page, line in pages() if line not in LEFT_OUT]
# Each line once, under the first page that has it.
LINES = {_NOT_OURS.sub("", line): page for page, line in reversed(FIRST)}
# What a page says of the demo's own tenancy, wherever it stands there.
LINES |= {
    _NOT_OURS.sub("", line): path.name
    for path in (ROOT / "docs").glob("*.md")
    for line in read_examples(path)
    if "--tenancy acme" in line
}


@pytest.fixture(scope="module")
def demo(environment: Path) -> Path:
    """A demo's folder; a repository, too, for what is compared with a commit."""
    directory = environment / "examples" / "demo"
    directory.parent.mkdir()
    done = forked.run(["demo", directory, "--quiet"], cwd=directory.parent)
    assert done.returncode == 0, done.stderr
    for words in ("init -q", "add db", "-c user.name=a -c user.email=a@b.example commit -qm released",
                  "update-ref refs/remotes/origin/main HEAD"):  # fmt: skip
        subprocess.run(["git", *shlex.split(words)], cwd=directory, check=True)
    return directory


def test_most_pages_have_an_example() -> None:
    assert len(FIRST) >= 95
    assert len({page for page, _ in FIRST}) == len(FIRST)


@pytest.mark.parametrize("line", [*reversed(LINES)], ids=[*reversed(LINES.values())])
def test_the_first_example_of_a_page_runs_in_the_demos_folder(demo: Path, line: str) -> None:
    for written in ("db", "mappings"):  # by the examples before
        shutil.rmtree(demo / written, ignore_errors=True)
    shutil.copytree(DEMO_FILES, demo, dirs_exist_ok=True)
    program, *words = shlex.split(line)
    assert program == "stackctl"
    if words in (["run"], ["serve"]):
        port = ["--port", "0"] if words == ["serve"] else []
        with forked.start([*words, *port], cwd=demo) as process:
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
            process.send_signal(signal.SIGINT)
            assert process.wait(forked.TIMEOUT) == 0
        return
    done = forked.run(words, cwd=demo)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"

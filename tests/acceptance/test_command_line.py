"""The installed command, as a person, a script and a cron line meet it."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import forked

UNSAFE = Path(__file__).parents[1] / "data" / "breaks_every_rule.sql"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}


class Cli:
    """Runs the command in a folder of its own."""

    def __init__(self, cwd: Path, environ: dict[str, str]) -> None:
        self.cwd, self.environ = cwd, environ

    def __call__(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return forked.run(arguments, cwd=self.cwd, env=self.environ | environ)


@pytest.fixture
def cli(tmp_path: Path, environ: dict[str, str]) -> Cli:
    return Cli(tmp_path, environ)


@pytest.fixture
def silent_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# -- errors


@pytest.mark.parametrize(("line", "page"), [
    ("rules eval --email", "rules eval"), ("--config x status --max-lag", "status"), ("--config", ""),
])  # fmt: skip
def test_an_option_without_its_value_names_the_commands_help(cli: Cli, line: str, page: str) -> None:
    done = cli(*line.split())
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"hint: see `{f'stackctl {page}'.strip()} --help`")


def test_a_server_that_does_not_run_is_named_once(cli: Cli, silent_port: int) -> None:
    done = cli("status", "--database-url", f"postgresql://u@127.0.0.1:{silent_port}/d")
    assert done.stderr.splitlines()[0] == (
        f"error: the operated database can't be reached at 127.0.0.1:{silent_port}: Connection refused"
    )


@pytest.mark.quick
def test_an_error_goes_to_stderr_with_a_hint_and_nothing_else(cli: Cli) -> None:
    done = cli("fuse", "show")
    assert done.returncode == 3
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()
    assert error == "error: no database is named"
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["fuse", "show", "--json"], "no-database", 3),
        (["--json", "fuse", "show"], "no-database", 3),
        (["fuse", "--json", "show"], "no-database", 3),
        (["fuse", "show", "--json", "--database-url", ""], "no-database", 3),
        (["nonsense", "--json"], "usage", 2),
        (["fuse", "show", "--json", "--nonsense"], "usage", 2),
        (["--json"], "usage", 2),
        (["fuse", "--json"], "usage", 2),
        (["config", "show", "--config", "gone.yaml", "--json"], "config-not-found", 3),
        (["init", "no/such/folder/f.yaml", "--json"], "file-not-written", 3),
    ],
)
def test_under_json_there_is_exactly_one_document_on_stdout(
    cli: Cli, arguments: list[str], code: str, exit_code: int
) -> None:
    done = cli(*arguments)
    assert done.returncode == exit_code
    document = json.loads(done.stdout)
    assert document.keys() == {"error"}
    assert document["error"].keys() == {"code", "message", "hint", "details"}
    assert document["error"]["code"] == code
    assert done.stderr.startswith(f"error: {document['error']['message']}\n")


def test_a_server_that_does_not_answer(cli: Cli, silent_port: int) -> None:
    done = cli("fuse", "show", "--json", "--database-url", f"postgresql://u@127.0.0.1:{silent_port}/d")
    assert done.returncode == 4
    assert json.loads(done.stdout)["error"]["code"] == "unreachable"
    assert f"127.0.0.1:{silent_port}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("where", [0, 1, 2])
def test_debug_shows_the_traceback_wherever_it_stands(cli: Cli, where: int) -> None:
    arguments = ["fuse", "show"]
    arguments.insert(where, "--debug")
    done = cli(*arguments)
    assert done.returncode == 3
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-2].startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "c.yaml", "config", "show"],
        ["config", "--config", "c.yaml", "show"],
        ["config", "show", "--config", "c.yaml"],
        ["--config", "other.yaml", "config", "show", "--config", "c.yaml"],
        ["--config=other.yaml", "config", "--config=other.yaml", "show", "--config=c.yaml"],
    ],
)
def test_shared_options_before_and_after_the_command_the_nearest_wins(cli: Cli, arguments: list[str]) -> None:
    (cli.cwd / "c.yaml").write_text("database: {schema: mine}\n")
    done = cli(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config_file"] == str(cli.cwd / "c.yaml")


@pytest.mark.parametrize(
    ("arguments", "option", "times"),
    [
        ("--config c.yaml --config d.yaml config show", "--config", 2),
        ("status --tenancy 1 --tenancy=2", "--tenancy", 2),
        ("run --max-duration 1s --max-duration 1s --max-duration 2s", "--max-duration", 3),
        ("sync --all --mapping a --rebuild a --rebuild b", "--rebuild", 2),
        ("migrate dump -o a --output b", "--output", 2),
        ("fuse off --mapping a --mapping b", "--mapping", 2),
    ],
)
def test_an_option_with_one_value_is_given_once(cli: Cli, arguments: str, option: str, times: int) -> None:
    done = cli(*arguments.split(), "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (2, "usage")
    assert error["message"] == f"{option} is given {times} times, and takes one value"


def test_a_flag_given_twice_says_the_same(cli: Cli) -> None:
    assert cli("config", "show", "--json", "--json", "-qq").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "suggestion", "help_of"),
    [
        (["statsu"], "status", "stackctl"),
        (["fuse", "shwo"], "show", "stackctl fuse"),
        (["fuse", "show", "--databse-url", "x"], "--database-url", "stackctl fuse show"),
        (["--jsn", "status"], "--json", "stackctl"),
    ],
)
def test_a_slip_of_the_finger_is_answered_with_what_was_meant(
    cli: Cli, arguments: list[str], suggestion: str, help_of: str
) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert suggestion in done.stderr
    assert f"`{help_of} --help`" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["migrate", "up", "--dir", ""],
        ["migrate", "lint", str(UNSAFE), ""],
        ["migrate", "diff", "--from", "", "--to", str(UNSAFE.parent)],
        ["status", "--config", ""],
    ],
)
def test_an_empty_text_is_not_the_current_folder(cli: Cli, arguments: list[str]) -> None:
    """As it comes from a script in which a variable is not set."""
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "an empty string is" in done.stderr


# -- help


@pytest.mark.parametrize(
    "arguments", [["-h"], ["--help"], ["config", "-h"], ["config", "show", "-h"], ["init", "--help"]]
)
def test_help_is_a_result_and_ends_with_an_example_that_runs(cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert done.returncode == 0
    assert done.stderr == ""
    _, heading, examples = done.stdout.rpartition("\nExample")
    assert heading
    assert all(line.startswith("  stackctl ") for line in examples.splitlines()[1:])


@pytest.mark.parametrize("arguments", [[], ["config"]])
def test_no_command_is_bad_usage_and_shows_the_help(cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert "Usage: stackctl" in done.stdout


def test_version(cli: Cli) -> None:
    from stackctl import __version__

    for arguments in (["--version"], ["-V"], ["--no-color", "--version"]):
        done = cli(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"stackctl {__version__}\n", "")


@pytest.mark.parametrize("columns", ["0", "1", "2", "7", "20", "-3", "wide"])
def test_a_terminal_of_any_width(cli: Cli, columns: str) -> None:
    for arguments in (["--help"], ["config", "show"]):
        done = cli(*arguments, COLUMNS=columns)
        assert (done.returncode, done.stderr) == (0, "")


# -- streams


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["config", "--help"], 0),
        (["config"], 2),
        (["config", "show"], 0),
        (["config", "show", "--json"], 0),
        (["x", "--json"], 2),
        (["config", "show", "--json", "--config", "absent"], 3),
        (["fuse", "show", "--json", "--database-url", "postgresql://127.0.0.1:1/x"], 4),
        (["migrate", "lint", str(UNSAFE)], 1),
        (["migrate", "lint", "--json", str(UNSAFE)], 1),
    ],
)
@pytest.mark.parametrize("streams", ["stdout", "both", "closed", "all closed"])
def test_the_exit_code_is_the_results_whether_anybody_reads_it(
    cli: Cli, streams: str, arguments: list[str], code: int
) -> None:
    read, write = os.pipe()
    os.close(read)
    command, errors = [*forked.FRESH, *arguments], write if streams == "both" else subprocess.PIPE
    if "closed" in streams:
        command = ["sh", "-c", 'exec "$@" >&-' + (" <&- 2>&-" if streams == "all closed" else ""), "sh", *command]
    done = subprocess.run(
        command, cwd=cli.cwd, env=cli.environ, stdout=write, stderr=errors, text=True, check=False, timeout=30
    )
    os.close(write)
    assert done.returncode == code
    assert "Traceback" not in (done.stderr or "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize(("arguments", "code"), [(["init"], 0), (["config"], 2), (["migrate", "lint", str(UNSAFE)], 1)])
def test_what_a_full_stderr_does_not_take_changes_no_result(cli: Cli, arguments: list[str], code: int) -> None:
    with Path("/dev/full").open("w") as full:
        command = [*forked.FRESH, *arguments]
        done = subprocess.run(command, cwd=cli.cwd, env=cli.environ, stdout=subprocess.PIPE, stderr=full, check=False)
    assert done.returncode == code


@pytest.mark.parametrize("forced", ["FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "CLICOLOR_FORCE"])
def test_no_colours_off_a_terminal_whatever_a_runner_sets(cli: Cli, forced: str) -> None:
    for name in ("NO_COLOR", "TERM"):
        cli.environ.pop(name, None)
    for arguments in (["--help"], ["config", "show"], ["nonsense"], ["config", "--help"]):
        done = cli(*arguments, TERM="xterm-256color", **{forced: "1"})
        assert "\x1b" not in done.stdout + done.stderr


RULES = "rules:\n  a: {condition: 'email == \"a@b.example\"', action: {type: reject}}\n"
SUITE = "tests: [{name: x, user: {email: a@b.example}, expect: {decision: reject}}]\n"
DASHES = [
    ("rules list --rules - -o name", RULES, 0, "a\n"),
    ("rules tree a --rules -", RULES, 0, "email == "),
    ("rules tree --from -", '"email == \\"b\\""', 0, 'email == "b"\n'),
    ("rules tree --from -", "", 3, "hint: `stackctl rules tree RULE --json`"),
    ("rules eval --rules rules.yaml --users -", "email,auth_method\na@b.example,password\n", 0, "1 user: 1 reject"),
    ("rules eval --rules rules.yaml --users -", '{"email": "a@b.example"}\n{"email": "b"}\n', 0, "2 users: 1 reject"),
    ("rules eval --rules rules.yaml --users -", '{"users": [{"email": "a@b.example"}]}', 0, "1 user: 1 reject"),
    ("rules eval --rules rules.yaml --users -", "- email: a@b.example\n", 0, "1 user: 1 reject"),
    ("rules eval --rules rules.yaml --users -", "", 3, "a list of users is expected"),
    ("rules test --rules rules.yaml -", SUITE, 0, "1 test: 1 passed"),
    (
        "rules test --rules rules.yaml - --record",
        SUITE.replace("reject", "allow"),
        2,
        "standard input can't be changed",
    ),
    ("rules disable a --rules - --yes", RULES, 2, "standard input can't be changed"),
    ("mappings check -", "name: x\n", 1, "/dev/stdin:1:1: error"),
    ("migrate lint -", "DROP TABLE x;", 1, "/dev/stdin:1:12: error drop-table"),
    ("migrate lint -", "SELECT 1;", 0, "1 file: "),
]


@pytest.mark.parametrize(("line", "given", "code", "says"), DASHES, ids=[f"{one[0]} {one[3]}" for one in DASHES])
def test_a_file_named_dash_is_standard_input(cli: Cli, line: str, given: str, code: int, says: str) -> None:
    (cli.cwd / "rules.yaml").write_text(RULES)
    streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with forked.Command(line.split(), cwd=cli.cwd, env=cli.environ, text=True, **streams) as command:
        said, _ = command.communicate(given, timeout=30)
    assert (command.returncode, says in said) == (code, True), said
    assert not list(cli.cwd.glob("-*"))


def on_a_terminal(cli: Cli, *arguments: str, **environ: str) -> str:
    """What the command writes to a terminal, both streams."""
    base = {name: value for name, value in cli.environ.items() if name not in ("NO_COLOR", "COLUMNS", "TERM")}
    ours, theirs = pty.openpty()
    env = {**base, "TERM": "xterm-256color", **environ}
    with forked.Command(arguments, cwd=cli.cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        shown = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # Linux's way to say that the other side is closed
                break
            if not chunk:
                break
            shown += chunk
    os.close(ours)
    return shown.decode()


@pytest.mark.parametrize("arguments", [["--help"], ["config", "show"], ["nonsense"]])
def test_colours_on_a_terminal_until_somebody_says_no(cli: Cli, arguments: list[str]) -> None:
    assert "\x1b[" in on_a_terminal(cli, *arguments)
    assert "\x1b" not in on_a_terminal(cli, "--no-color", *arguments)
    assert "\x1b" not in on_a_terminal(cli, *arguments, "--no-color")
    assert "\x1b" not in on_a_terminal(cli, *arguments, NO_COLOR="1")


@pytest.mark.parametrize("ignored", [(), (signal.SIGHUP,)], ids=["ours", "nohup"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_command_exits_130_without_a_traceback(
    cli: Cli, number: signal.Signals, ignored: tuple[signal.Signals, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        url = f"postgresql://u:hidden-pw@127.0.0.1:{port}/d"
        with forked.start(
            ["fuse", "show", "--database-url", url],
            cwd=cli.cwd,
            env=cli.environ,
            before="".join(f"import signal; signal.signal({one:d}, signal.SIG_IGN)" for one in ignored),
        ) as process:
            connection, _ = listener.accept()  # it is connected, and waits for an answer that never comes
            with connection:
                process.send_signal(number)
                if number in ignored:
                    with pytest.raises(subprocess.TimeoutExpired):
                        process.wait(timeout=0.2)
                    process.send_signal(signal.SIGTERM)
                out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert out == ""


# -- init and config show


def test_init_writes_a_file_for_its_owner_alone_that_works(cli: Cli) -> None:
    done = cli("init")
    assert done.returncode == 0
    file = cli.cwd / "stackctl.yaml"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "stackctl doctor" in done.stderr
    shown = json.loads(cli("config", "show", "--json").stdout)
    assert shown["config_file"] == str(file)
    shown = json.loads(cli("config", "show", "--json", STACKCTL_DATABASE_URL="postgresql://u:hidden-pw@h/d").stdout)
    assert shown["settings"][0] == {
        "key": "database.url",
        "value": "postgresql://u:***@h/d",
        "source": "environment",
        "origin": "STACKCTL_DATABASE_URL",
    }


def test_init_does_not_overwrite_unless_told(cli: Cli) -> None:
    file = cli.cwd / "stackctl.yaml"
    file.write_text("mine")
    file.chmod(0o644)
    done = cli("init", "--json")
    assert done.returncode == 5
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "file-exists"
    assert "--force" in error["hint"]
    assert file.read_text() == "mine"
    assert cli("init", "--dry-run").returncode == 0
    assert file.read_text() == "mine"
    assert cli("init", "--force").returncode == 0
    assert file.read_text().startswith("# stackctl.yaml")
    assert file.stat().st_mode & 0o777 == 0o600


def test_init_writes_where_it_is_told(cli: Cli) -> None:
    (cli.cwd / "ops").mkdir()
    assert cli("init", "a.yaml").returncode == 0
    assert cli("init", "--config", "b.yaml").returncode == 0
    assert cli("init", "ops").returncode == 0
    assert all((cli.cwd / name).is_file() for name in ("a.yaml", "b.yaml", "ops/stackctl.yaml"))
    assert not (cli.cwd / "stackctl.yaml").exists()


def test_a_dry_run_prints_the_file_and_writes_nothing(cli: Cli) -> None:
    printed = cli("init", "--dry-run").stdout
    assert list(cli.cwd.iterdir()) == []
    cli("init")
    assert (cli.cwd / "stackctl.yaml").read_text() == printed


def test_config_show_without_any_file(cli: Cli) -> None:
    from stackctl.config.keys import KEYS

    done = cli("config", "show", "--json")
    assert done.returncode == 0
    shown = json.loads(done.stdout)
    assert shown.keys() == {"config_file", "settings", "tenancies"}
    assert (shown["config_file"], shown["tenancies"]) == (None, [])
    assert [entry["key"] for entry in shown["settings"]] == list(KEYS)
    assert {entry["source"] for entry in shown["settings"]} == {"default"}


CONFIGURED = """\
database: {url: "${NOT_SET_1}", schema: backend}
payments: {stripe_api_key: sk_live_hidden, telegram: {bot_token: "123456789:hiddenhiddenhiddenhiddenhi", chat_id: 7}}
tenancies:
  6fbbf22e-f4b2-4c6e-95a1-beab6fa41063:
    external_databases:
      a: {type: postgres, url: "postgresql://u:hidden@h/d", mappings: [users]}
      b: {type: postgres, url: "postgresql://${NOT_SET_2}@h/d"}
      c: {type: sqlite, path: c.db}
"""


def test_config_show_says_where_everything_comes_from_and_keeps_the_secrets(cli: Cli) -> None:
    file = cli.cwd / "stackctl.yaml"
    file.write_text(CONFIGURED)
    done = cli("config", "show", "--json", STACKCTL_STRIPE_API_BASE="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    found = {entry["key"]: (entry["value"], entry["source"], entry["origin"]) for entry in shown["settings"]}
    assert found["database.url"] == ("(unset: NOT_SET_1)", "file", f"{file}:1: database.url")
    assert found["database.schema"] == ("backend", "file", f"{file}:1: database.schema")
    assert found["payments.stripe_api_key"][0] == "(set)"
    assert found["payments.stripe_api_base"] == ("http://127.0.0.1:9", "environment", "STACKCTL_STRIPE_API_BASE")
    assert found["sync.workers"] == (4, "default", "default")
    (tenancy,) = shown["tenancies"]
    assert tenancy["databases"] == [
        {"database": "a", "type": "postgres", "connection": "postgresql://u:***@h/d", "mappings": ["users"]},
        {"database": "b", "type": "postgres", "connection": "(unset: NOT_SET_2)", "mappings": None},
        {"database": "c", "type": "sqlite", "connection": str(cli.cwd / "c.db"), "mappings": None},
    ]
    table = cli("config", "show").stdout
    assert "(unset: NOT_SET_1)" in table
    assert "hidden" not in table + done.stdout


def test_config_show_beside_a_broken_file(cli: Cli) -> None:
    (cli.cwd / "stackctl.yaml").write_text("nonsense: 1\n")
    assert cli("config", "show").returncode == 3
    done = cli("config", "show", "--json", "--database-url", "postgresql://u@h/d")
    assert done.returncode == 0
    assert "warning: ignored" in done.stderr
    assert json.loads(done.stdout)["config_file"] is None


def test_the_template_explains_every_key_and_each_may_be_uncommented() -> None:
    import re

    import yaml

    from stackctl.cli.start.init import TEMPLATE
    from stackctl.config.keys import KEYS

    plain = re.sub(r"^(\s*)# ((?:[a-z_]+|[0-9a-f-]{36}):(?: .*)?)$", r"\1\2", TEMPLATE, flags=re.MULTILINE)
    document = yaml.safe_load(plain)

    def paths(node: dict[str, object], prefix: str = "") -> set[str]:
        return {
            path
            for name, value in node.items()
            for path in (paths(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name})
        }

    tenancies = document.pop("tenancies")
    keys = {key: spec for key, spec in KEYS.items() if key != "migrations_dir"}  # short for migrations.dir
    assert paths(document) - {"version"} == set(keys)
    assert len(tenancies) == 1
    for key, spec in keys.items():
        value = document
        for part in key.split("."):
            value = value[part]
        if not (isinstance(value, str) and value.startswith("${")):
            assert value == spec.default, f"{key}: the template's default is not the real one"


def test_the_uncommented_template_loads(tmp_path: Path) -> None:
    import re

    from stackctl.cli.start.init import TEMPLATE
    from stackctl.config.file import load_config

    file = tmp_path / "stackctl.yaml"
    file.write_text(re.sub(r"^(\s*)# ((?:[a-z_]+|[0-9a-f-]{36}):(?: .*)?)$", r"\1\2", TEMPLATE, flags=re.MULTILINE))
    assert [list(databases) for databases in load_config(file).tenancies.values()] == [
        ["analytics", "local", "warehouse"]
    ]


@pytest.mark.parametrize("command", ["--version", "--help", "config show", "config show --json", "completion bash"])
@pytest.mark.parametrize(("redirected", "code"), [(">/dev/full", 1), (">&-", 0)])
def test_an_output_that_can_not_be_written(environ: dict[str, str], command: str, redirected: str, code: int) -> None:
    line = f"{sys.executable} -m stackctl {command} {redirected}"
    done = subprocess.run(["sh", "-c", line], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert ("error: the result can't be written" in done.stderr) == bool(code)
    assert "Traceback" not in done.stderr
    assert "a bug in stackctl" not in done.stderr


def test_a_width_of_zero_is_no_width(environ: dict[str, str]) -> None:
    command = [*forked.FRESH, "config", "show"]
    done = subprocess.run(command, env=environ | {"COLUMNS": "0"}, capture_output=True, text=True, timeout=60)
    assert "database.schema" in done.stdout


@pytest.mark.parametrize("url", ["host=h pasword=WRONGs3cret", "WRONGs3cret", "postgresql://h/d?pasword=WRONGs3cret"])
def test_a_string_that_is_no_connection_string_is_not_repeated(cli: Cli, url: str) -> None:
    for arguments in (["status", "--debug"], ["doctor"], ["config", "show"]):
        done = cli(*arguments, "--database-url", url)
        assert "WRONGs3cret" not in done.stdout + done.stderr, arguments


def test_lists_have_forms_for_scripts_and_documents_a_filter(cli: Cli) -> None:
    names = cli("mappings", "list", "--jq", ".mappings[].name")
    assert "users" in names.stdout.splitlines()
    assert cli("mappings", "list", "-o", "name").stdout == names.stdout
    assert cli("mappings", "list", "-o", "csv").stdout.startswith("mapping,source,target,key,columns,depends on\n")
    for refused in (["-o", "csv", "--json"], ["--jq", ".", "-o", "name"]):
        done = cli("mappings", "list", *refused)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    bad = cli("mappings", "list", "--jq", ".[")
    assert (bad.returncode, "hint: an expression of jq" in bad.stderr) == (2, True)
    failed = cli("mappings", "list", "--jq", ".mappings.x")
    assert (failed.returncode, failed.stdout) == (1, "")
    # The command's own exit code wins, and its error is no document for a filter.
    for also in ([], ["--json"]):
        done = cli("mappings", "show", "nope", "--jq", ".x.y", *also)
        assert (done.returncode, done.stdout) == (2, "")


def test_a_filter_needs_its_package(cli: Cli) -> None:
    environ = {name: value for name, value in cli.environ.items() if name != "COLUMNS"}
    line = ["mappings", "list", "--jq", "."]
    done = forked.run(line, cwd=cli.cwd, env=environ, before="import sys; sys.modules['jq'] = None")
    assert (done.returncode, "pip install 'stackctl[jq]'" in done.stderr) == (3, True)


@pytest.mark.parametrize(
    "value",
    [
        "25.00",
        "24hours",
        "0d4a9a10-5a0b-4d8e-9f2b-1c2d3e4f5a6b",
        "ada@example.com",
        "https://h/p",
        "10:30:00 no",
        "a=b",
    ],
)
def test_what_is_no_secret_is_shown_in_errors_however_it_is_given(cli: Cli, value: str) -> None:
    for given in ([f"--mapping={value}"], ["--mapping", value]):
        assert value in cli("sync", "--all", *given).stderr
    for given in ([f"--since={value}"], ["--since", value]):
        assert value in cli("refunds", "list", *given).stderr

"""The one table of settings: each key's kind and default, and the flag and variable that override the file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stackctl.core.durations import parse_wait
from stackctl.core.redaction import has_password_without_host, is_ambiguous_url, remember_secret, remember_url

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal[
    "text",
    "id",
    "url",
    "secret",
    "path",
    "integer",
    "duration",
    "choice",
    "names",
    "word",
    "choices",
    "folders",
    "secrets",
]

BUNDLED = "bundled"  # in place of a folder: what comes with stackctl
_WORD = r"[a-z][a-z0-9_]{0,39}"
_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


@dataclass(frozen=True)
class Key:
    """One setting: what it holds, its default, and the flag and variable that override the file."""

    kind: Kind
    default: Any = None
    flag: str | None = None
    variable: str | None = None
    choices: tuple[str, ...] = ()
    minimum: int = 1
    schemes: tuple[str, ...] = ()  # how a URL may begin, where that is not PostgreSQL's affair


KEYS: dict[str, Key] = {
    "database.url": Key("url", flag="database_url", variable="STACKCTL_DATABASE_URL"),
    "database.replica_url": Key("url"),
    "database.schema": Key("text", "public"),
    "database.change_capture": Key("choice", "auto", choices=("triggers", "application", "auto")),
    "mappings_dir": Key("folders"),
    "migrations_dir": Key("path"),
    "migrations.dir": Key("path"),  # the same, beside what belongs to it
    "migrations.history": Key("word"),
    "migrations.lint.disable": Key("names"),
    "migrations.lint.severity": Key("choices", choices=("error", "warning", "advice")),
    "migrations.lint.from": Key("id"),
    "sync.batch_size": Key("integer", 20000),
    "sync.stamp_batch_size": Key("integer", 1000),
    "sync.workers": Key("integer", 4),
    "sync.sequencer_interval": Key("duration", "50ms"),
    "sync.poller_interval": Key("duration", "50ms"),
    "sync.wakeup": Key("choice", "poll", choices=("poll", "notify")),
    "sync.on_failover": Key("choice", "refuse", choices=("refuse", "repair")),
    "sync.schema_changes": Key("choice", "evolve", choices=("evolve", "refuse")),
    "sync.dispatch": Key("choice", "direct", choices=("direct", "http", "qstash")),
    "sync.endpoint": Key("url", schemes=("https://", "http://")),
    "sync.endpoint_timeout": Key("duration", "90s"),
    "sync.signing_keys.current": Key("secret", variable="QSTASH_CURRENT_SIGNING_KEY"),
    "sync.signing_keys.next": Key("secret", variable="QSTASH_NEXT_SIGNING_KEY"),
    "sync.qstash.url": Key("url", "https://qstash.upstash.io", variable="QSTASH_URL", schemes=("https://", "http://")),
    "sync.qstash.token": Key("secret", variable="QSTASH_TOKEN"),
    "serve.host": Key("text", "127.0.0.1"),
    "serve.port": Key("integer", 8787, minimum=0),
    "serve.public_url": Key("url", schemes=("https://", "http://")),
    "serve.token": Key("secret"),
    "external_databases_from": Key("choice", "config", choices=("config", "backend")),
    "external_databases_local": Key("choice", "refuse", choices=("refuse", "allow")),
    "sign_up_rules": Key("path", "./sign-up-rules.yaml"),
    "payments.stripe_api_key": Key("secret", flag="stripe_api_key", variable="STRIPE_API_KEY"),
    "payments.stripe_api_base": Key(
        "url", flag="stripe_api_base", variable="STACKCTL_STRIPE_API_BASE", schemes=("https://", "http://", "embedded:")
    ),
    "payments.webhook_secrets": Key("secrets", variable="STRIPE_WEBHOOK_SECRET"),
    "payments.telegram.bot_token": Key("secret"),
    "payments.telegram.chat_id": Key("id"),
}

# The keys of one entry under tenancies.<uuid>.external_databases.
DATABASE_TYPES = ("postgres", "sqlite", "duckdb")
DATABASE_KEYS: dict[str, Key] = {
    "type": Key("choice", choices=DATABASE_TYPES),
    "url": Key("url"),
    "path": Key("path"),
    "mappings": Key("names"),
}


def is_reference(value: object) -> bool:
    """Whether the value waits for the environment (`${NAME}`), so that its form can't be judged yet."""
    return isinstance(value, str) and _REFERENCE.search(value) is not None


def fill_references(text: str, fill: Callable[[str, str | None], str]) -> str:
    """`text` with what `fill` makes of each `${NAME}` (name, None) and `${NAME:-default}` (name, default)."""
    return _REFERENCE.sub(lambda match: fill(match["name"], match["default"]), text)


def check_references(text: str) -> None:
    """ValueError when a `${` in the text is not a whole `${NAME}` or `${NAME:-default}`."""
    if "${" in _REFERENCE.sub("", text) or any("${" in (match["default"] or "") for match in _REFERENCE.finditer(text)):
        raise ValueError("a `${` that is neither ${NAME} nor ${NAME:-default}")


def convert_value(spec: Key, value: Any, base: Path) -> Any:
    """`value` as the key's kind asks; ValueError says what was expected."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError("a NUL character")  # at which the server's and the system's functions would cut it off
    match spec.kind:
        case "integer":
            if isinstance(value, bool) or not re.fullmatch(r"[+-]?[0-9]{1,9}", str(value)):
                raise ValueError(f"expected a whole number, got {describe_value(value)}")
            if int(value) < spec.minimum:
                raise ValueError(f"expected at least {spec.minimum}, got {value}")
            return int(value)
        case "duration":
            return parse_wait(str(value) if isinstance(value, str | int) else describe_value(value))
        case "choice":
            if value not in spec.choices:
                raise ValueError(f"expected one of {', '.join(spec.choices)}; got {describe_value(value)}")
            return value
        case "names":
            if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                raise ValueError(f"expected a list of names, got {describe_value(value)}")
            return value
        case "folders":
            listed: list[Any] = value if isinstance(value, list) else [value]
            if not listed:
                raise ValueError("expected a folder, or a list of folders; got an empty list")
            return tuple(convert_value(Key("path"), one, base) if one != BUNDLED else BUNDLED for one in listed)
        case "secrets":
            several: list[Any] = value if isinstance(value, list) else [value]
            if not several or not all(isinstance(one, str) and one for one in several):
                raise ValueError("expected a list of secrets")
            for one in several:
                if not is_reference(one):
                    remember_secret(one)
            return tuple(several)
        case "choices":
            if not isinstance(value, dict):
                raise ValueError(f"expected a block of names, got {describe_value(value)}")
            for name, choice in value.items():
                if choice not in spec.choices:
                    raise ValueError(f"{name}: expected one of {', '.join(spec.choices)}; got {describe_value(choice)}")
            return {str(name): choice for name, choice in value.items()}
        case "id" if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        case "url" | "secret" if not isinstance(value, str):
            raise ValueError(f"expected text, got {type(value).__name__}")
        case _ if not isinstance(value, str):
            raise ValueError(f"expected text, got {describe_value(value)}")
        case "path" if not value:  # it would be the folder of the file
            raise ValueError("an empty string is not a path")
        case "path":
            try:
                return base / Path(value).expanduser()
            except RuntimeError as problem:  # ~user, and there is no such user
                raise ValueError(str(problem)) from None
        case "url":
            remember_url(value)
            check_url(value)
            if spec.schemes and not value.startswith(spec.schemes):
                raise ValueError(f"expected an address that begins with {' or '.join(spec.schemes)}")
        case "secret":
            remember_secret(value)
        case "word" if not re.fullmatch(_WORD, value):
            raise ValueError(f"expected a small letter, then up to 39 of a-z, 0-9 and _; got {value!r}")
        case _:
            pass
    return value


def check_url(value: str) -> None:
    """ValueError for a URL of PostgreSQL that libpq would cut elsewhere than its author meant."""
    if value.startswith(("postgres:", "postgresql:")):
        if is_ambiguous_url(value):
            raise ValueError("an @ or / in the user, password or database name must be written as %40 or %2F")
        if has_password_without_host(value):
            raise ValueError("no @HOST: write postgresql://USER@HOST:5432/DBNAME, a password after the user")


def describe_value(value: Any) -> str:
    """A value of a file for a message; what is nested is named by its kind only (it may hold secrets, or be huge)."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "a block of keys"
        case list() | set():
            return "a list"
        case _:
            return repr(value)

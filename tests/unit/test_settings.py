from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from stackctl.config.keys import KEYS
from stackctl.config.settings import Flags, Settings
from stackctl.core.errors import ConfigError

URL = "postgresql://app@db.example:5432/stack"
TENANCY = "6fbbf22e-f4b2-4c6e-95a1-beab6fa41063"


def settings(
    cwd: Path,
    environ: dict[str, str] | None = None,
    /,
    *,
    file: str | None = None,
    flags: Flags | None = None,
    **more: str,
) -> Settings:
    if file is not None:
        (cwd / "stackctl.yaml").write_text(file, encoding="utf-8")
    return Settings(flags, {"HOME": str(cwd / "home"), **(environ or {}), **more}, cwd)


# -- precedence


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = 'database: {url: "postgresql://file/x"}\n'
    environ = {"STACKCTL_DATABASE_URL": "postgresql://environment/x"}
    flags = Flags(database_url="postgresql://flag/x")

    found = [
        settings(tmp_path, environ, file=file, flags=flags).setting("database.url"),
        settings(tmp_path, environ, file=file).setting("database.url"),
        settings(tmp_path, file=file).setting("database.url"),
        settings(tmp_path, file="").setting("database.url"),
    ]

    assert [(x.value, x.source) for x in found] == [
        ("postgresql://flag/x", "flag"),
        ("postgresql://environment/x", "environment"),
        ("postgresql://file/x", "file"),
        (None, "default"),
    ]
    assert [x.origin for x in found[:2]] == ["--database-url", "STACKCTL_DATABASE_URL"]
    assert found[2].origin == f"{tmp_path}/stackctl.yaml:1: database.url"


def test_an_empty_variable_is_as_good_as_none(tmp_path: Path) -> None:
    found = settings(tmp_path, file='database: {url: "postgresql://file/x"}', STACKCTL_DATABASE_URL="")
    assert found.database_url() == "postgresql://file/x"


def test_an_empty_flag_does_not_let_the_surroundings_choose_the_database(tmp_path: Path) -> None:
    found = settings(tmp_path, flags=Flags(database_url=""), STACKCTL_DATABASE_URL=URL)
    with pytest.raises(ConfigError) as caught:
        found.database_url()
    assert caught.value.code == "no-database"


def test_a_null_in_the_file_means_the_default(tmp_path: Path) -> None:
    found = settings(tmp_path, file="sync: {batch_size: null}\ndatabase:\nmappings_dir:\n")
    assert found.setting("sync.batch_size").source == "default"
    assert found.get("sync.batch_size") == 20000
    assert all(folder.is_dir() for folder in found.mappings_dirs())


def test_no_database_named_anywhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(tmp_path).database_url()
    assert caught.value.exit_code == 3
    assert caught.value.code == "no-database"
    assert "--database-url" in (caught.value.hint or "")


# -- explicit beats ambient, also when the ambient one is broken


BROKEN: list[Any] = ["database: [", "nonsense: 1", "version: 9", b"\xff\xfe\x00", None]


def break_file(path: Path, content: str | bytes | None) -> None:
    if content is None:
        path.mkdir()  # unreadable, for root too
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("content", BROKEN)
def test_a_database_named_by_flag_is_not_stopped_by_a_broken_file(tmp_path: Path, content: str | bytes | None) -> None:
    break_file(tmp_path / "stackctl.yaml", content)
    warnings: list[str] = []
    found = Settings(Flags(database_url=URL), {}, tmp_path, warnings.append)

    assert found.database_url() == URL
    assert warnings == []  # the file was not touched for that
    assert found.get("sync.batch_size") == 20000
    found.get("sync.workers")
    assert len(warnings) == 1
    assert str(tmp_path / "stackctl.yaml") in warnings[0]
    # What only the file can answer is not answered with "nothing": a poller would finish entries undelivered.
    with pytest.raises(ConfigError):
        found.external_databases()


@pytest.mark.parametrize("content", BROKEN)
def test_a_database_named_by_variable_is_not_stopped_either(tmp_path: Path, content: str | bytes | None) -> None:
    break_file(tmp_path / "stackctl.yaml", content)
    found = Settings(Flags(), {"STACKCTL_DATABASE_URL": URL}, tmp_path)
    assert found.database_url() == URL
    with pytest.raises(ConfigError) as caught:
        found.get("sync.batch_size")
    assert caught.value.exit_code == 3


def test_a_file_named_by_flag_must_be_right(tmp_path: Path) -> None:
    found = Settings(Flags(config=Path("gone.yaml"), database_url=URL), {}, tmp_path)
    with pytest.raises(ConfigError) as caught:
        found.get("sync.batch_size")
    assert caught.value.code == "config-not-found"
    assert str(tmp_path / "gone.yaml") in caught.value.message


# -- which file


def test_the_order_of_the_places_for_the_file(tmp_path: Path) -> None:
    for name in ("flag", "variable", "cwd", "xdg", "home"):
        (tmp_path / name).mkdir()
    home_file = tmp_path / "home/.config/stackctl/stackctl.yaml"
    xdg_file = tmp_path / "xdg/stackctl/stackctl.yaml"
    cwd = tmp_path / "cwd"
    for place in (tmp_path / "flag/f.yaml", tmp_path / "variable/v.yaml", cwd / "stackctl.yaml", xdg_file, home_file):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("version: 1\n")
    environ = {
        "HOME": str(tmp_path / "home"),
        "XDG_CONFIG_HOME": str(tmp_path / "xdg"),
        "STACKCTL_CONFIG": "../variable/v.yaml",
    }

    def path(flags: Flags) -> Path | None:
        found = Settings(flags, environ, cwd).config_path
        return found.resolve() if found else None

    assert path(Flags(config=Path("../flag/f.yaml"))) == tmp_path / "flag/f.yaml"
    assert path(Flags()) == tmp_path / "variable/v.yaml"
    del environ["STACKCTL_CONFIG"]
    assert path(Flags()) == cwd / "stackctl.yaml"
    (cwd / "stackctl.yaml").unlink()
    assert path(Flags()) == xdg_file
    del environ["XDG_CONFIG_HOME"]
    assert path(Flags()) == home_file
    home_file.unlink()
    assert path(Flags()) is None


# -- ${NAME}


@pytest.mark.parametrize("place", ["stackctl.yaml", "home/.config/stackctl/stackctl.yaml"])
def test_a_strangers_file_is_used_only_when_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('database: {url: "postgresql://file/x"}')
    owner = path.stat().st_uid
    if owner == 0:  # root's file is anybody's to trust
        os.chown(path, 12345, -1)
        owner = 12345
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(ConfigError) as caught:
        settings(tmp_path).database_url()
    assert (caught.value.code, str(path) in caught.value.message) == ("config-owner", True)
    assert f"--config {path}" in (caught.value.hint or "")
    assert settings(tmp_path, flags=Flags(config=path)).database_url() == "postgresql://file/x"
    assert settings(tmp_path, STACKCTL_CONFIG=str(path)).database_url() == "postgresql://file/x"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert settings(tmp_path, SUDO_UID=str(owner)).database_url() == "postgresql://file/x"


def test_a_file_that_everybody_may_write_is_not_used_by_chance(tmp_path: Path) -> None:
    path = tmp_path / "stackctl.yaml"
    path.write_text('database: {url: "postgresql://file/x"}')
    path.chmod(0o666)
    with pytest.raises(ConfigError) as caught:
        settings(tmp_path).database_url()
    assert caught.value.code == "config-owner"
    assert settings(tmp_path, flags=Flags(config=path)).database_url() == "postgresql://file/x"


def test_a_variable_is_asked_for_only_when_the_value_is_used(tmp_path: Path) -> None:
    file = 'database: {url: "${NOT_SET}", schema: "${SCHEMA}"}\npayments: {stripe_api_key: "${ALSO_NOT}"}\n'
    found = settings(tmp_path, file=file, SCHEMA="stack")
    assert found.get("database.schema") == "stack"
    with pytest.raises(ConfigError) as caught:
        found.get("database.url")
    assert caught.value.exit_code == 3
    assert caught.value.code == "variable-not-set"
    assert caught.value.details == {"variable": "NOT_SET"}
    assert f"{tmp_path}/stackctl.yaml:1: database.url" in caught.value.message


@pytest.mark.parametrize(
    ("environ", "value"),
    [({}, "fallback"), ({"S": ""}, "fallback"), ({"S": "given"}, "given")],
)
def test_a_default_stands_in_for_a_variable_that_is_unset_or_empty(
    tmp_path: Path, environ: dict[str, str], value: str
) -> None:
    assert settings(tmp_path, environ, file='database: {schema: "${S:-fallback}"}').get("database.schema") == value


def test_references_inside_a_text_and_an_empty_default(tmp_path: Path) -> None:
    file = 'database: {url: "postgresql://${U}@${H:-localhost}/db${X:-}"}'
    assert settings(tmp_path, file=file, U="app").database_url() == "postgresql://app@localhost/db"


def test_a_filled_value_is_not_filled_again(tmp_path: Path) -> None:
    found = settings(tmp_path, file='database: {schema: "${A}"}', A="${B}", B="no")
    assert found.get("database.schema") == "${B}"


@pytest.mark.parametrize("text", ["${A", "${}", "${A-B}", "${1X}", "${A:-${B}}"])
def test_a_misspelt_reference_is_found_when_the_file_is_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"stackctl.yaml:1: database.url.*NAME"):
        settings(tmp_path, file=f"database: {{url: '{text}'}}").get("database.schema")


def test_a_filled_value_of_the_wrong_type_is_refused_but_not_shown(tmp_path: Path) -> None:
    from stackctl.core.redaction import scrub

    with pytest.raises(ConfigError) as caught:
        settings(tmp_path, file='sync: {workers: "${OOPS}"}', OOPS="a-very-secret-thing").get("sync.workers")
    assert caught.value.exit_code == 3
    assert "a-very-secret-thing" not in scrub(caught.value.message)
    assert settings(tmp_path, file='sync: {workers: "${N}"}', N="7").get("sync.workers") == 7


# -- values


def test_relative_paths_are_relative_to_the_file_and_to_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc/s.yaml"
    file.write_text(
        f"mappings_dir: maps\nmigrations_dir: /abs\nsign_up_rules: ../rules.yaml\n"
        f"tenancies: {{{TENANCY}: {{external_databases: {{local: {{type: sqlite, path: '${{D:-a}}.db'}}}}}}}}\n"
    )
    found = Settings(Flags(config=Path("etc/s.yaml")), {}, tmp_path)
    assert found.mappings_dirs() == (tmp_path / "etc/maps",)
    assert found.migrations_dir() == Path("/abs")
    assert found.get("sign_up_rules").resolve() == tmp_path / "rules.yaml"
    (local,) = found.external_databases()
    assert found.resolve_database(local).path == tmp_path / "etc/a.db"


def test_the_defaults_are_valid_values_of_their_own_keys(tmp_path: Path) -> None:
    found = settings(tmp_path)
    values = {key: found.get(key) for key in KEYS}
    assert values["sync.poller_interval"] == timedelta(milliseconds=50)
    assert values["sign_up_rules"] == tmp_path / "sign-up-rules.yaml"
    assert all(found.setting(key).source == "default" for key in KEYS)


def test_the_configured_databases(tmp_path: Path) -> None:
    other = "00000000-0000-4000-8000-000000000001"
    file = f"""
tenancies:
  {TENANCY.upper()}:
    external_databases:
      analytics: {{type: postgres, url: "${{A}}", mappings: [users, teams]}}
      local: {{type: sqlite, path: x.db}}
  {other}:
"""
    found = settings(tmp_path, file=file, A="postgresql://u:hidden-pw@h/db")
    assert found.tenancies() == (UUID(TENANCY), UUID(other))
    analytics, local = found.external_databases()
    assert (analytics.id, analytics.mappings, local.mappings) == ("analytics", ("users", "teams"), None)
    assert found.resolve_database(analytics).url == "postgresql://u:hidden-pw@h/db"
    assert found.resolve_database(analytics).connection == "postgresql://u:***@h/db"


def test_an_external_database_without_an_address_is_not_libpqs_default(tmp_path: Path) -> None:
    file = f'tenancies: {{{TENANCY}: {{external_databases: {{a: {{type: postgres, url: "${{A:-}}"}}}}}}}}'
    found = settings(tmp_path, file=file, PGHOST="somewhere")
    with pytest.raises(ConfigError):
        found.resolve_database(found.external_databases()[0])


def test_no_secret_in_any_repr(tmp_path: Path) -> None:
    url = "postgresql://u:hidden-pw@h/db"
    flags = Flags(database_url=url, stripe_api_key="strange-key")
    file = f'tenancies: {{{TENANCY}: {{external_databases: {{a: {{type: postgres, url: "{url}"}}}}}}}}'
    found = settings(tmp_path, file=file, flags=flags)
    shown = repr([flags, found, found.setting("database.url"), found.setting("payments.stripe_api_key")])
    shown += repr(found.external_databases())
    assert "hidden-pw" not in shown
    assert "strange-key" not in shown

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from stackctl.config.keys import KEYS, convert_value
from stackctl.core import redaction
from stackctl.core.redaction import (
    is_ambiguous_url,
    mask_shapes,
    redact_url,
    remember_secret,
    remember_url,
    scrub,
    scrub_values,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORDS = [
    "hunter2",
    "p@ssw0rd",
    "pa:ss:word",
    "pa/ss/word",
    "pa?ss#word",
    "pa#ss",
    "50%off!",
    "sp ace d",
    "quo'te",
    'dou"ble',
    "back\\slash",
    "b'o\"t\\h",
    "ünïcödé",
    "tab\tbed",
    "${NAME}",
    "***",
    "=equals=&and",
]


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(redaction, "_secrets", set())
    yield


def clean(text: str, secret: str) -> bool:
    return secret == "***" or secret not in text


# -- connection strings


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("encode", [str, lambda p: quote(p, safe="")], ids=["raw", "encoded"])
def test_a_url_is_shown_without_its_password(password: str, encode: object) -> None:
    assert callable(encode)
    spelled = str(encode(password))
    url = f"postgresql://app:{spelled}@db.example:5432/stack?sslmode=require"
    shown = redact_url(url)
    assert shown == "postgresql://app:***@db.example:5432/stack?sslmode=require"
    assert clean(shown, spelled)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("host=h,port=1,password=Zx9Qw7SECRET", "host=h,port=1,password=***"),
        ("postgresql://u:x@h/d&password=Zx9Qw7SECRET", "postgresql://u:***@h/d&password=***"),
        ("postgresql://u:x@h/d;password=Zx9Qw7SECRET", "postgresql://u:***@h/d;password=***"),
        ("host=h options=-cpassword=Zx9Qw7SECRET", "host=h options=-cpassword=***"),
        ("embedded:/x?password=Zx9Qw7SECRET", "embedded:/x?password=***"),
        ("embedded?dbname=x&password=Zx9Qw7SECRET", "embedded?dbname=x&password=***"),
    ],
)
def test_a_password_where_none_belongs_is_not_shown(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    remember_url(url)
    if url.startswith("embedded"):
        assert scrub("it said Zx9Qw7SECRET") == "it said ***"


def test_a_url_that_became_a_path_is_masked() -> None:
    assert mask_shapes("/x/postgresql:/u:Zx9Qw7SECRET@h/d") == "/x/postgresql:/u:***@h/d"


@pytest.mark.parametrize("password", ["hunter2", "pa/ss", "a?b", "123456", "a:b", "h,x"])
def test_a_url_without_a_host_is_refused_and_its_password_hidden(password: str, tmp_path: Path) -> None:
    url = f"postgresql://sync:{password}/db"
    with pytest.raises(ValueError, match="no @HOST"):
        convert_value(KEYS["database.url"], url, tmp_path)
    assert redact_url(url) == "postgresql://sync:***"
    assert scrub(f"invalid port number: {password}/db") == "invalid port number: ***"


@pytest.mark.parametrize(
    "url", ["postgresql://h:5432/db", "postgresql://h:1,i:2/db", "postgresql://[::1]:5432/db", "postgresql:///db"]
)
def test_a_port_is_no_password(url: str, tmp_path: Path) -> None:
    assert convert_value(KEYS["database.url"], url, tmp_path) == redact_url(url) == url


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("encode", [str, lambda p: quote(p, safe="")], ids=["raw", "encoded"])
def test_a_password_of_a_url_is_masked_wherever_it_turns_up(password: str, encode: object) -> None:
    assert callable(encode)
    remember_url(f"postgresql://app:{encode(password)}@db.example:5432/stack")
    for text in (
        f"it said {password}!",
        f"it said {password!r}",
        json.dumps({"m": f"x {password} y"}),
        repr([{"a": f"'{password}\""}]),
    ):
        assert clean(scrub(text), password), scrub(text)
    for text in (f"at x%3A{quote(password, safe='')}%40h", f"<{quote(password, safe='')}>"):
        assert clean(scrub(text), quote(password, safe=""))


@pytest.mark.parametrize("password", ["pa@ss-word", "pa/ss-word", "p@th/w@rd-x"])
def test_the_pieces_of_a_password_that_libpq_would_cut_are_masked_too(password: str) -> None:
    url = f"postgresql://app:{password}@db.example/stack"
    assert is_ambiguous_url(url)
    remember_url(url)
    for piece in password.replace("/", "@").split("@"):
        if len(piece) >= 4:
            assert piece not in scrub(f'failed to resolve host "{piece}@db.example": try {piece}')


@pytest.mark.parametrize(
    ("conninfo", "secrets"),
    [
        ("host=h password=hunter2 dbname=d", ["hunter2"]),
        ("host=h password = 'hunter 2'", ["hunter 2"]),
        (r"host=h password='hun\'ter\\2'", [r"hun\'ter\\2", "hun'ter\\2"]),
        (r"host=h password=hunter\ two", [r"hunter\ two", "hunter two"]),
        ("host=h password=hun&ter2", ["hun&ter2", "ter2"]),
        ("host=h password=hun'ter2", ["hun'ter2", "ter2"]),
        ("host=h sslpassword=hunter2", ["hunter2"]),
        ("password=hunter two host=h", ["hunter"]),
        ("host=h password='hunter2 dbname=d", ["hunter2"]),
        ("PASSWORD=hunter2", ["hunter2"]),
        ("postgresql://h/d?user=u&password=hunter2", ["hunter2"]),
        ("postgres:/user:hunter2@host", ["hunter2"]),
        ("postgres//user:hunter2@host", ["hunter2"]),
        ("user:hunter2@host:5432/db", ["hunter2"]),
        ("postgresql://u:hunter2@h1:5432,h2:5432/db", ["hunter2"]),
        ("mysql://u:hunter2@h/db", ["hunter2"]),
    ],
)
def test_every_form_of_connection_string(conninfo: str, secrets: list[str]) -> None:
    shown = redact_url(conninfo)
    remember_url(conninfo)
    for secret in secrets:
        assert secret not in shown
        for message in (
            f"bad: {conninfo}",
            f"bad: {conninfo!r}",
            f'missing "=" after "{secrets[0]}" in connection info string',
        ):
            assert secret not in scrub(message)


@pytest.mark.parametrize(
    "url",
    [
        "embedded",
        "embedded:./pg=1@x",
        "postgresql://db.example:5432/stack",
        "postgresql:///stack?host=/run/postgresql",
        "postgresql://app@db.example/stack?application_name=a@b",
        "host=db.example port=5432",
        "postgresql://[::1]:5432/db",
        "https://api.example:8443/v1",
    ],
)
def test_where_there_is_no_secret_nothing_is_lost(url: str) -> None:
    assert redact_url(url) == url
    remember_url(url)
    assert scrub(f"<{url}>") == f"<{url}>"
    assert not is_ambiguous_url(url)


def test_a_password_that_the_user_or_database_name_gives_away_is_not_remembered() -> None:
    remember_url("postgresql://postgres:postgres@h/x")
    remember_url("postgresql://app:stack@h/stack")
    assert scrub("role postgres, database stack") == "role postgres, database stack"
    assert redact_url("postgresql://postgres:postgres@h/x") == "postgresql://postgres:***@h/x"


# -- shapes, known to nobody


@pytest.mark.parametrize(
    "text",
    [
        "Invalid API Key provided: {}",
        "{{'Authorization': 'Bearer {}'}}",
        "key_{}",
        "x={};",
        '{{"k":"{}"}}',
        "https://x/?k={}&y",
    ],
)
@pytest.mark.parametrize(
    "key", ["sk_live_51AbCdEf", "rk_live_51AbCdEf", "sk_test_51AbCdEf", "whsec_AbC+dEf/x=", "whsec_a_b-c"]
)
def test_api_keys_are_recognised_anywhere(text: str, key: str) -> None:
    secret = key.split("_", 2)[-1] if not key.startswith("whsec") else key[6:]
    for masked in (scrub(text.format(key)), mask_shapes(text.format(key))):
        assert secret not in masked
        assert "***" in masked


@pytest.mark.parametrize(
    "text",
    [
        "PGPASSWORD=hunter2 psql",
        "{'password': 'hunter2', 'host': 'h'}",
        '{"user": "u", "sslpassword": "hunter2"}',
        "connection to postgresql://app:hunter2@h/db failed",
        "STRIPE_API_KEY=hunter2",
        "bot 123456789:hunter2hunter2hunter2hunter2hunter2",
    ],
)
def test_secrets_are_recognised_by_their_names(text: str) -> None:
    assert "hunter2" not in scrub(text)


# -- ordinary words


def test_a_short_secret_is_masked_only_where_it_stands_alone() -> None:
    remember_secret("sync2")
    assert scrub("sync23 on sync2: Sync2") == "sync23 on ***: Sync2"


@pytest.mark.parametrize("word", ["database", "postgres", "connection", "Sommer", "5432"])
def test_an_ordinary_word_is_masked_only_where_a_password_stands(word: str) -> None:
    remember_secret(word)
    text = f'the {word} of {word}_url at host {word}, port 5432, could not be read: {word!r}, "{word}"'
    assert scrub(text) == text
    for place in (
        "password={}",
        "password = '{}'",
        "mysql://app:{}@h/d",
        '{{"password": "{}"}}',
        "ALTER ROLE app PASSWORD '{}'",
        'missing "=" after "{}" in connection info string',
        'invalid connection option "{}"',
    ):
        assert word not in scrub(place.format(word)).replace("connection info", "").replace("connection option", "")


def test_a_long_word_is_no_ordinary_one() -> None:
    remember_secret("correcthorsebattery")
    assert scrub("it is correcthorsebattery") == "it is ***"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("syntax error at or near \"'hunter2'\"", 'syntax error at or near "***"'),
        ('syntax error at or near "$$hunter "2"$$"; try 1 "x"', 'syntax error at or near "***"; try 1 "x"'),
        ('syntax error at or near "PASWORD"', 'syntax error at or near "PASWORD"'),
    ],
)
def test_a_literal_that_the_server_quotes(text: str, masked: str) -> None:
    assert scrub(text) == masked


def test_a_value_too_short_to_be_told_from_text_is_left_to_the_shapes() -> None:
    remember_secret("a")
    remember_secret("")
    remember_secret(None)
    assert scrub("a cat; postgresql://u:a@h") == "a cat; postgresql://u:***@h"


def test_results_lose_nothing_but_what_cannot_be_data() -> None:
    remember_secret("postgres")
    data = '{"type": "postgres", "sql": "password = \'x\'", "url": "https://h:8080/a@b", "token": "abc"}'
    assert mask_shapes(data) == data


def test_error_documents_keep_their_keys() -> None:
    for secret in ("details", "code-1"):
        remember_secret(secret)
    masked = scrub_values({"details": {"code-1": ["code-1", 1, None]}})
    assert masked == {"details": {"code-1": ["***", 1, None]}}


@pytest.mark.parametrize(
    "text",
    [
        "123456:0b5c2f1e-0b5c-4f1e-8b5c-2f1e0b5c2f1e",
        "1234567890:0b5c2f1e-0b5c-4f1e-8b5c-2f1e0b5c2f1e",
        "12345678901:" + "a" * 35,
        "123456789:" + "a" * 34,
    ],
)
def test_a_number_and_an_id_are_no_bot_token(text: str) -> None:
    assert scrub(text) == mask_shapes(text) == text


def test_a_bot_token_is_masked_in_the_url_that_telegram_wants() -> None:
    token = "AAH" + "x_-9" * 8
    assert mask_shapes(f"https://api.telegram.org/bot123456789:{token}/sendMessage").endswith(
        "123456789:***/sendMessage"
    )


def test_long_texts_are_scrubbed_in_no_time() -> None:
    remember_url("postgresql://app:" + "a:" * 50 + "@h/db")
    for text in (
        "a" * 50_000,
        "postgres://" + ":" * 20_000,
        "password=" * 5_000,
        "'password': '" * 3_000,
        "key=" + "\\'" * 9_000,
        "a" * 1_000_000,
        "a://" * 20_000,
        "password " * 5_000 + "'" + "''" * 9_000,
        "password" + " " * 50_000,
        ' at or near "$' + '"a' * 20_000,
        ' at or near "$' * 5_000,
    ):
        scrub(text)
        mask_shapes(text)
        redact_url(text)

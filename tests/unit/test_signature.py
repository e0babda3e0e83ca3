"""The signature of requests to an endpoint: one known token, each check and their order, and noise."""

from __future__ import annotations

import base64
import hmac
import json
import random
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from stackctl.sync.dispatch.signature import (
    LEEWAY,
    LIFETIME,
    STACKCTL,
    UPSTASH,
    Keys,
    SignatureRefused,
    find_scheme,
    sign,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "http://127.0.0.1:8787/sync-engine"
BODY = b'{"tenancyId":"6fbbf22e-f4b2-4c6e-95a1-beab6fa41063"}'
NOW = 1800000000
KEYS = Keys("sig_current_for_tests")
KNOWN = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJVcHN0YXNoIiwic3ViIjoiaHR0cDovLzEyNy4wLjAuMTo4Nzg3L3N5bmMtZW5naW5l"
    "IiwiZXhwIjoxODAwMDAwMzAwLCJuYmYiOjE4MDAwMDAwMDAsImlhdCI6MTgwMDAwMDAwMCwianRpIjoiand0XzEiLCJib2R5IjoibHJqdWRSdVZPc0"
    "pFT2p2X0Y4ekJqWkhGSUcyNldZOXozQmNSY3pxYkFHTT0ifQ.YOrtPukMIYKNzJoLxDEj9C84P7Drc8JTZbZn2zIebgg"
)
CLAIMS: dict[str, Any] = jwt.decode(KNOWN, options={"verify_signature": False})


def check(token: str, *, keys: Keys = KEYS, url: str = URL, body: bytes = BODY, now: float = NOW) -> str:
    """`good`, or which check failed."""
    try:
        verify(token, keys, scheme=UPSTASH, url=url, body=body, now=now)
    except SignatureRefused as refused:
        return str(refused)
    return "good"


def make(key: str = KEYS.current, headers: dict[str, Any] | None = None, **changed: Any) -> str:
    """A token of PyJWT's making; a claim that is None is left out."""
    claims = {name: value for name, value in (CLAIMS | changed).items() if value is not None}
    return jwt.encode(claims, key, "HS256", headers=headers)


def test_the_known_token() -> None:
    assert sign(KEYS, url=URL, body=BODY, jti="jwt_1", now=NOW, scheme=UPSTASH) == KNOWN
    assert check(KNOWN) == "good"


def test_another_library_reads_what_is_signed() -> None:
    keys = Keys("k" * 40)
    token = sign(keys, url=URL, body=BODY, jti="e", now=NOW)
    unchecked: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    claims = jwt.decode(token, keys.current, ["HS256"], issuer="stackctl", options=unchecked)
    assert (claims["sub"], claims["exp"] - claims["nbf"]) == (URL, LIFETIME)
    assert verify(token, keys, scheme=STACKCTL, url=URL, body=BODY, now=NOW)["jti"] == "e"


def test_keys_are_changed_without_a_gap() -> None:
    token = make("old_next_new_current")
    assert check(token, keys=Keys("old_current_key_", "old_next_new_current")) == "good"
    assert check(token, keys=Keys("old_next_new_current", "new_next")) == "good"
    assert check(token, keys=Keys("old_current_key_", "another")) == "signed with neither key"
    assert "old" not in repr(Keys("old_current_key_"))


# In the order of the checks: what is wrong, and what is said; with all that follows wrong as well, the same.
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("signed with neither key", {"key": "x" * 32}),
    ("issuer other than of this header", {"iss": "stackctl"}),
    ("not valid yet", {"nbf": NOW + LEEWAY + 1}),
    ("expired", {"exp": NOW - LEEWAY}),
    ("made for another URL", {"sub": URL + "/"}),
    ("no hash of a body", {"body": None}),
]


@pytest.mark.parametrize("first", range(len(WRONG)))
def test_each_check_in_its_order(first: int) -> None:
    said, wrong = WRONG[first]
    assert check(make(**wrong)) == said
    for others in WRONG[first:]:
        wrong = others[1] | wrong
    assert check(make(**wrong)) == said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"body": CLAIMS["body"].rstrip("=")}, "good"),
        ({"body": "ä"}, "no hash of a body"),
        ({"body": 5}, "no hash of a body"),
        ({"body": ""}, "made for another body"),
        ({"nbf": NOW + LEEWAY, "exp": NOW - LEEWAY + 1}, "good"),
        ({"nbf": None}, "not valid yet"),
        ({"nbf": float("nan")}, "not valid yet"),
        ({"nbf": True}, "not valid yet"),
        ({"exp": None}, "expired"),
        ({"exp": float("nan")}, "expired"),
        ({"iss": None}, "issuer other than of this header"),
        ({"sub": None}, "made for another URL"),
        ({"sub": URL.replace("http:", "https:")}, "made for another URL"),
        ({"jti": None}, "good"),
    ],
)
def test_claims(changed: dict[str, Any], said: str) -> None:
    def encode(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    # PyJWT refuses to make some of them.
    claims = {name: value for name, value in (CLAIMS | changed).items() if value is not None}
    signed = f"{encode({'alg': 'HS256'})}.{encode(claims)}"
    digest = hmac.digest(KEYS.current.encode(), signed.encode(), "sha256")
    assert check(f"{signed}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}") == said


def test_the_body_as_it_came() -> None:
    assert check(KNOWN, body=BODY + b"\n") == "made for another body"
    assert check(KNOWN, body=b"") == "made for another body"


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "malformed token"),
        (KNOWN.rpartition(".")[0], "malformed token"),
        (KNOWN + ".x", "malformed token"),
        (KNOWN + "=", "malformed token"),
        (f" {KNOWN}", "malformed token"),
        ("..", "malformed token"),
        ("é.é.é", "malformed token"),
        ("a" * 100_000, "malformed token"),
        (
            ".".join([base64.urlsafe_b64encode(b"[" * 4000).decode().rstrip("="), "e30", "e30"]),
            "malformed token",
        ),
        (jwt.encode(CLAIMS, "", "none"), "malformed token"),  # its signature is empty
        (jwt.encode(CLAIMS, "", "none") + "x", "algorithm other than HS256"),
        (jwt.encode(CLAIMS, "k" * 64, "HS512"), "algorithm other than HS256"),
        (make(headers={"crit": ["x"]}), "algorithm other than HS256"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_no_such_token(token: str, said: str) -> None:
    assert check(token) == said


def test_one_signature_and_one_only() -> None:
    ours, theirs = (b"stackctl-signature", b"a"), (b"Upstash-Signature", b"b")
    assert find_scheme([ours]) == (STACKCTL, "a")
    assert find_scheme([(b"host", b"x"), theirs]) == (UPSTASH, "b")
    for headers in ([], [ours, ours], [ours, theirs], [(b"x-stackctl-signature", b"a")]):
        with pytest.raises(SignatureRefused):
            find_scheme(headers)


def test_noise_is_refused_and_nothing_else() -> None:
    """10,000 damaged tokens and bodies: each is refused, in words."""
    chance = random.Random(21)

    def damage(value: str) -> str:
        kinds: list[Callable[[str, int], str]] = [
            lambda text, at: text[:at] + chr(chance.randrange(256)) + text[at + 1 :],
            lambda text, at: text[:at] + text[at + 1 :],
            lambda text, at: text[:at] + text[at:] * 2,
            lambda text, at: text[at:] + text[:at],
            lambda text, at: text[:at] + chance.choice("._-=/+ \0é") + text[at:],
        ]
        return chance.choice(kinds)(value, chance.randrange(1, len(value)))

    for _ in range(10_000):
        token, body = KNOWN, BODY
        if chance.random() < 0.5:
            token = damage(token)
        else:
            body = bytes(chance.randbytes(chance.randrange(60)))
        said = check(token, body=body)
        # The last character of a signature holds two bits that mean nothing.
        assert said != "good" or (token[:-1], body) == (KNOWN[:-1], BODY), (token, body)

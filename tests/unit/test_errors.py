from __future__ import annotations

import json

import pytest

from stackctl.core import errors
from stackctl.core.errors import StackctlError

EXIT_CODES = {
    "AnswerNo": 1,
    "UsageError": 2,
    "ConfigError": 3,
    "ServiceError": 4,
    "StateError": 5,
    "OutcomeUnknown": 6,
}


def test_the_exit_codes_are_those_that_scripts_rely_on() -> None:
    family = {cls.__name__: cls.exit_code for cls in StackctlError.__subclasses__()}
    assert family == EXIT_CODES
    assert (errors.EXIT_OK, errors.EXIT_BUG, errors.EXIT_INTERRUPTED) == (0, 70, 130)


@pytest.mark.parametrize("name", EXIT_CODES)
def test_every_class_is_told_apart_by_its_class_alone(name: str) -> None:
    error = getattr(errors, name)("it happened", code="some-case", hint="do this", details={"n": 1})
    assert (str(error), error.code, error.hint) == ("it happened", "some-case", "do this")
    assert json.loads(json.dumps(error.details)) == {"n": 1}


def test_details_are_a_copy() -> None:
    given = {"n": 1}
    error = StackctlError("x", code="y", details=given)
    given["n"] = 2
    assert error.details == {"n": 1}

"""Sixteen refunds of one purchase at once, killed and lied to: a short run of the driver in tests/chaos/refunds.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos.refunds import AT_ONCE, Driver

if TYPE_CHECKING:
    from tests.shop import Shop
    from tests.stripe_fake import Running


@pytest.mark.parametrize("rounds", [2, pytest.param(12, marks=pytest.mark.long)])
def test_what_is_refunded_is_what_was_charged_and_asked_for_at_the_most(
    rounds: int, shop: Shop, stripe: Running
) -> None:
    found = Driver(shop, stripe, seed=20261124).run(rounds)
    assert found["commands"] >= rounds * AT_ONCE
    assert found["refunds"]["succeeded"] >= rounds
    assert sum(found["killed_at"].values()) > 0

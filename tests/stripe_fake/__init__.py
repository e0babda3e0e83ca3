"""A stateful stand-in for Stripe on loopback: `python -m tests.stripe_fake`, or `with running() as fake:`."""

from tests.stripe_fake.server import Running, running

__all__ = ["Running", "running"]

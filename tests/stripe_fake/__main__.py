"""`python -m tests.stripe_fake [--port N]`: prints its URL, and serves until it is stopped."""

from __future__ import annotations

import argparse

from tests.stripe_fake.server import KEY, served

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--port", type=int, default=0)
_, fake, serve = served(parser.parse_args().port)
print(fake.url, KEY, flush=True)
serve()

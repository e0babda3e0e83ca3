"""The whole table of what stackctl promises about speed, each figure against a limit measured in the same run.

    python -m bench [--only NAME,...] [--rows 200000] [--json] [--record]

A figure that misses its goal is marked. One that is worse than it was recorded in results.json, by more than other work
on the machine explains, has regressed: the exit code is 1. `--record` writes what was measured there.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import signal
import sys
import tempfile
from pathlib import Path

from bench.scene import Figure, Scene
from stackctl.core.errors import StackctlError

GROUPS = {
    "moving": ("first-load", "paged", "re-send", "per-row", "sqlite", "duckdb"),
    "stamping": ("stamping", "stamping-parents", "stamping-live"),
    "service": ("latency-poll", "latency-notify", "idle"),
    "against_dlt": ("against-dlt",),
    "sustained": ("sustained",),
    "tenancies": ("tenancies", "tenancies-cost"),
    "reading": ("cursor", "verify"),
}


RECORDED = Path(__file__).with_name("results.json")
NOISE = 0.85  # of the recorded ratio that a figure must reach, which is measured within one run


def main() -> int:
    names = [name for group in GROUPS.values() for name in group]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME,...", default=",".join(names), help=", ".join(names))
    parser.add_argument("--rows", type=int, default=200_000, help="users, with a channel each")
    parser.add_argument("--json", action="store_true", help="one object a figure")
    parser.add_argument("--record", action="store_true", help="take the figures as those to keep up with")
    arguments = parser.parse_args()
    # Not the default action: a run that is terminated must not leave its server behind.
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    wanted = arguments.only.split(",")
    if unknown := set(wanted) - set(names):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if not arguments.json:
        print(
            f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}; {arguments.rows:,} users"
        )
        print(f"{'':<84}{'ratio':>7}  goal", flush=True)
    figures: list[Figure] = []
    for group, members in GROUPS.items():
        if chosen := [name for name in wanted if name in members]:
            figures += _measure(group, chosen, arguments.rows, as_json=arguments.json)
    recorded: dict[str, float] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    if arguments.record:
        ratios = recorded | {one.what: one.ratio for one in figures if one.ratio is not None}
        RECORDED.write_text(json.dumps({what: round(ratio, 3) for what, ratio in ratios.items()}, indent=1) + "\n")
        return 0
    regressed = [one for one in figures if one.has_regressed(recorded.get(one.what), NOISE)]
    for one in regressed:
        print(f"regressed: {one.what}: {one.ratio:.2f}, it was {recorded[one.what]:.2f}", file=sys.stderr)
    return 1 if regressed else 0


def _measure(group: str, wanted: list[str], rows: int, *, as_json: bool) -> list[Figure]:
    """The figures of one group, on a server of its own; those that can't be had here are shown as missing."""
    found: list[Figure] = []
    try:
        module = importlib.import_module(f"bench.{group}")
        with tempfile.TemporaryDirectory(prefix="sb-") as name:
            scene = Scene(Path(name), rows)
            try:
                for figure in module.figures(scene, wanted):
                    _show(figure, as_json=as_json)
                    found.append(figure)
            finally:
                scene.server.release()
    except (StackctlError, ImportError) as error:
        print(f"{group}: {error}", file=sys.stderr)
    for name in wanted:
        if name not in {figure.name for figure in found}:
            _show(Figure(name, name, "not available"), as_json=as_json)
    return found


def _show(figure: Figure, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(figure)), flush=True)
        return
    ratio = "-" if figure.ratio is None else f"{figure.ratio:.2f}"
    missed = "  MISSED" if figure.reached is False else ""
    print(f"{figure.what:<84}{ratio:>7}  {figure.goal}{missed}\n    {figure.measured}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

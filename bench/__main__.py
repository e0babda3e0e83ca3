"""The whole table of what stackctl promises about speed, each figure against a limit measured in the same run.

    python -m bench [--only NAME,...] [--rows 200000] [--json]

A figure that misses its goal is marked; the exit code is 0 all the same, for other work on a machine is not a defect.
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
    "moving": ("first-load", "re-send", "per-row", "sqlite", "duckdb"),
    "stamping": ("stamping", "stamping-parents", "stamping-live"),
    "service": ("latency-poll", "latency-notify", "idle"),
    "against_dlt": ("against-dlt",),
    "sustained": ("sustained",),
    "tenancies": ("tenancies", "tenancies-cost"),
    "reading": ("cursor", "verify"),
}


def main() -> None:
    names = [name for group in GROUPS.values() for name in group]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME,...", default=",".join(names), help=", ".join(names))
    parser.add_argument("--rows", type=int, default=200_000, help="users, with a channel each")
    parser.add_argument("--json", action="store_true", help="one object a figure")
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
    for group, members in GROUPS.items():
        if chosen := [name for name in wanted if name in members]:
            _measure(group, chosen, arguments.rows, as_json=arguments.json)


def _measure(group: str, wanted: list[str], rows: int, *, as_json: bool) -> None:
    """The figures of one group, on a server of its own; those that can't be had here are shown as missing."""
    shown: set[str] = set()
    try:
        module = importlib.import_module(f"bench.{group}")
        with tempfile.TemporaryDirectory(prefix="sb-") as name:
            scene = Scene(Path(name), rows)
            try:
                for figure in module.figures(scene, wanted):
                    _show(figure, as_json=as_json)
                    shown.add(figure.name)
            finally:
                scene.server.release()
    except (StackctlError, ImportError) as error:
        print(f"{group}: {error}", file=sys.stderr)
    for name in wanted:
        if name not in shown:
            _show(Figure(name, name, "not available"), as_json=as_json)


def _show(figure: Figure, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(figure)), flush=True)
        return
    ratio = "-" if figure.ratio is None else f"{figure.ratio:.2f}"
    missed = "  MISSED" if figure.reached is False else ""
    print(f"{figure.what:<84}{ratio:>7}  {figure.goal}{missed}\n    {figure.measured}", flush=True)


if __name__ == "__main__":
    main()

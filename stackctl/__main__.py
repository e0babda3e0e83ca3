"""The entry point. What needs no command line parser is answered before one is imported."""

from __future__ import annotations

import sys


def main() -> None:
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        from stackctl import __version__

        sys.stdout.write(f"stackctl {__version__}\n")
        return
    if arguments[:1] == ["_complete"]:
        from stackctl.cli.complete import complete

        sys.exit(complete(arguments[1:]))
    from stackctl.cli.app import run

    sys.exit(run(arguments))


if __name__ == "__main__":
    main()

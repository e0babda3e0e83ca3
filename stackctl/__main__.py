"""The entry point. What needs no command line parser is answered before one is imported."""

from __future__ import annotations

import gc
import os
import sys

from stackctl.core.streams import adopt_streams

COLLECT_AFTER = 50_000  # new objects; Python's 700 would search everything that is imported again and again


def main() -> None:
    gc.set_threshold(COLLECT_AFTER)
    adopt_streams()
    # A terminal that does not know its width says 0.
    if os.environ.get("COLUMNS") == "0":
        del os.environ["COLUMNS"]
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"]):
        from stackctl import __version__

        try:
            sys.stdout.write(f"stackctl {__version__}\n")
            sys.stdout.flush()
        except OSError as error:
            from stackctl.cli.app import report_os_error

            sys.exit(report_os_error(error, arguments))
        return
    if arguments[:1] == ["_complete"]:
        from stackctl.cli.completion.values import complete

        sys.exit(complete(arguments[1:]))
    from stackctl.cli.app import run

    code = run(arguments)
    gc.freeze()  # at its end, Python would search it three times more: a fifth of a short command
    sys.exit(code)


if __name__ == "__main__":
    main()

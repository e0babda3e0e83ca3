"""Keeps an embedded server running after its last user: `python -m stackctl.postgres.keeper DIR SECONDS FD`.

Started by the process that lets go of the server, whose lock on use.lock comes along as descriptor FD. Ends, and stops
the server, when nobody has used it for so many seconds, when DIR is gone, or when it is told to (SIGTERM; its PID is in
DIR/keeper.lock).
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from pathlib import Path

from stackctl.postgres.embedded_files import KEEPER_LOCK, USE_LOCK

_POLL_SECONDS = 1.0


def main() -> None:
    directory, seconds, use = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda signum, frame: told.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        with (directory / KEEPER_LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.truncate()
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            while time.time() - (directory / USE_LOCK).stat().st_mtime < seconds and not told.wait(_POLL_SECONDS):
                pass
    except OSError:  # another keeper was quicker, or the directory is gone
        return
    finally:
        os.close(use)
        if directory.is_dir():
            from stackctl.postgres.embedded import stop

            stop(directory)


if __name__ == "__main__":
    main()

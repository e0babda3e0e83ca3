"""The text of a migration file, or why there is none."""

from __future__ import annotations

import codecs
import errno
import stat
from typing import TYPE_CHECKING

from stackctl.core.errors import ConfigError
from stackctl.core.files import STDIN

if TYPE_CHECKING:
    from pathlib import Path

_NO_FILES = {"a directory": stat.S_ISDIR, "a FIFO": stat.S_ISFIFO, "a socket": stat.S_ISSOCK}
# UTF-32's mark begins like UTF-16's.
_WIDE_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(path: Path) -> str:
    """The text of a migration file. Raises ConfigError."""
    return decode_text(path, read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """Raises ConfigError where there is no file, or something that is read from for ever, or not at all."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and path != STDIN:
            kind = next((name for name, test in _NO_FILES.items() if test(mode)), "a device")
            raise _make_missing(path, f"is {kind}, not a file", "write the SQL into a file of that name")
        return path.read_bytes()
    except FileNotFoundError as error:
        if path.is_symlink():
            what = f"is a link to {path.readlink()}, which does not exist"
            raise _make_missing(path, what, "bring its target back, or remove the link") from error
        raise _make_missing(path, "does not exist", "bring it back, or remove what names it") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _make_missing(path, "is a link that leads in a circle", "put the file in its place") from error
        raise ConfigError(
            f"{path} can't be read: {error.strerror}",
            code="migration-unreadable",
            hint="let the user who runs stackctl read it",
        ) from error


def _make_missing(path: Path, what: str, hint: str) -> ConfigError:
    return ConfigError(f"{path} {what}", code="migration-file-missing", hint=hint, details={"file": str(path)})


def decode_text(path: Path, data: bytes) -> str:
    """The text that the bytes of a migration file say. Raises ConfigError (`migration-not-utf8`)."""
    line, column = 1, 1
    if encoding := _find_wide_encoding(data):
        what, hint = encoding, f"save the file as UTF-8: iconv -f {encoding} -t UTF-8"
    else:
        try:
            # Line endings are made one before anything runs, so a checkout on Windows defines the same function bodies.
            return data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            what, hint = f"not UTF-8 (byte {data[error.start]:#04x})", "save the file as UTF-8"
    raise ConfigError(
        f"{path}:{line}: {what}" + (", not UTF-8" if encoding else ""),
        code="migration-not-utf8",
        hint=hint,
        details={"file": str(path), "line": line, "column": column},
    )


def _find_wide_encoding(data: bytes) -> str:
    """UTF-32 or UTF-16, by the mark at the beginning, or by every second byte of it being NUL; empty for neither."""
    for mark, encoding in _WIDE_MARKS.items():
        if data.startswith(mark):
            return encoding
    head = data[:64]
    for nul, other, encoding in ((1, 0, "UTF-16LE"), (0, 1, "UTF-16BE")):
        if len(head) >= 4 and head[nul::2].count(0) * 2 > len(head[nul::2]) and not head[other::2].count(0):
            return encoding
    return ""

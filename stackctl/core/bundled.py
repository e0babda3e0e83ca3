"""Where the data that ships with stackctl lies: `migrations`, `mappings`, `completions`.

In a checkout they are folders beside the package; in a wheel they travel as `stackctl/_data/`.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent


def find_bundled(name: str) -> Path:
    """The folder of bundled data called `name`."""
    inside = _PACKAGE / "_data" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name

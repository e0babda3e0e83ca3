"""A copy of the committed tree to be changed, whose tests share one PostgreSQL that is running already."""

from __future__ import annotations

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Nothing is started, and migrations in hand do not spoil the template of other tests.
_SHARED = """

@pytest.fixture(scope="session")
def server(environment: Path) -> Iterator[embedded.EmbeddedServer]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    attached = embedded.attach(Path(os.environ["MUTATION_SERVER"] + worker), options=FAST)
    yield attached
    attached.release()


_build = Databases.template
Databases.template = lambda self, build: (
    os.environ.get("MUTATION_TEMPLATE", "") if build is migrated else ""
) or _build(self, build)
"""


def copy(commit: str, place: Path) -> Path:
    """Never the working tree itself: whatever happens, no mutant is left in it."""
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(place, filter="data")
    with (place / "tests/conftest.py").open("a") as conftest:
        conftest.write(_SHARED)
    return place


def environment(place: Path, environ: dict[str, str]) -> dict[str, str]:
    return environ | {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1", "MUTATION_SERVER": f"{place}-server"}

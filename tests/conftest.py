"""Settings for all tests, and what several train on; property tests are never timed: a slow machine is not wrong."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from postgres import MISSING, Cluster, binaries, cluster

settings.register_profile("gainful", deadline=None, print_blob=True)
settings.load_profile("gainful")

# A shell starts background jobs with Ctrl-C ignored, and so is it then in every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of a few thousand weights, in Hugging Face's folder; it takes the extra ``train`` to make."""
    folder = tmp_path_factory.mktemp("base")
    maker = Path(__file__).parent / "tiny_base.py"
    subprocess.run([sys.executable, maker, folder], check=True, capture_output=True)
    return folder


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and adapters of the test's own; the folder where trainings lie."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GAINFUL_ADAPTERS", str(tmp_path / "adapters"))
    return tmp_path / "cache" / "gainful" / "training"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server of the tests' own."""
    if binaries() is None:
        pytest.skip(MISSING)
    with cluster() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty store is, or may be: on each kind of database that there is."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    server: Cluster = request.getfixturevalue("postgres")
    return server.store()

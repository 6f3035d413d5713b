"""The repository keeps its word: documents name what exists, files stay small, a bare machine can start."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.core
import typer.main

from gainful import cli
from gainful.tasks.improving import Improving

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
SHELL_BLOCK = re.compile(r"^```(?:console|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def tracked_texts() -> list[tuple[str, str]]:
    """Return name and text of every file that belongs to the repository or is about to."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [(name, (ROOT / name).read_text("utf-8", "replace")) for name in names if (ROOT / name).is_file()]


def shell_lines(document: Path) -> list[str]:
    """Return the commands in a document's shell blocks, prompts taken off."""
    blocks = SHELL_BLOCK.findall(document.read_text())
    return [line.removeprefix("$ ").strip() for block in blocks for line in block.splitlines()]


def test_every_make_target_in_the_documents_exists_and_help_names_it() -> None:
    lines = [line.split() for document in DOCUMENTS for line in shell_lines(document) if line.startswith("make ")]
    named = {words[1] for words in lines}
    help_text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert {"demo", "test"} <= named
    assert named <= set(re.findall(r"^make ([a-z]+) ", help_text, re.MULTILINE))
    assert named <= set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_verb_in_the_readme_is_one_of_the_command_line() -> None:
    lines = [line for line in shell_lines(ROOT / "README.md") if line.startswith("gainful ")]
    verbs = {line.split()[1] for line in lines}
    gainful = Path(sys.executable).parent / "gainful"

    help_text = subprocess.run([gainful, "--help"], capture_output=True, text=True, check=True).stdout

    assert {"init", "improve", "verify"} <= verbs
    assert verbs <= set(re.findall(r"^\W*([a-z]+)\b", help_text, re.MULTILINE))


def test_the_readme_names_the_commands_that_take_no_json_and_no_other() -> None:
    (sentence,) = re.findall(r"Every command takes `--json`, but (.*?),", (ROOT / "README.md").read_text(), re.DOTALL)

    assert set(re.findall(r"`(\w+)`", sentence)) == set(without_json(typer.main.get_group(cli.app)))


def without_json(group: typer.core.TyperGroup) -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from without_json(command)
        elif not any("--json" in option.opts for option in command.params):
            yield name


def test_every_public_name_is_there_and_no_other() -> None:
    code = "from gainful import *; import gainful; print(set(gainful.__all__) <= set(dir(gainful)) & set(globals()))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "True"
    with pytest.raises(ImportError, match="improv"):
        exec("from gainful import improv")


def test_every_benchmark_has_a_line_in_the_list_of_benchmarks() -> None:
    listed = (ROOT / "benchmarks" / "README.md").read_text()

    assert [path.name for path in ROOT.glob("benchmarks/*.py") if f"`{path.name}`" not in listed] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    targets = [link.split("#")[0] for link in LINK.findall(document.read_text()) if "://" not in link]

    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_no_module_is_longer_than_450_lines() -> None:
    allowed = {
        "gainful/core.py": 780,  # the contract of all rooms, read in one go
        "gainful/loop/verify.py": 950,  # runs alone, on a machine without the package
    }
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in ROOT.glob("gainful/**/*.py")}

    assert {name: length for name, length in lengths.items() if length > allowed.get(name, 450)} == {}


def test_nothing_is_left_to_do_and_no_machine_is_named() -> None:
    banned = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "/work" + "/", "/tmp" + "/x"]))

    assert [(name, found.group()) for name, text in tracked_texts() if (found := banned.search(text))] == []


def test_the_version_has_a_place_in_the_changelog() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert version in (ROOT / "CHANGELOG.md").read_text()


def test_the_readme_fits_on_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


# --- a bare machine -------------------------------------------------------------------------------------


def make_venv(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", ROOT / ".ci" / "venv", folder]
    return subprocess.run(command, env={"PATH": str(path)}, capture_output=True, text=True, check=False)


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def stand_in(path: Path, *, ensurepip: bool) -> None:
    """Put a Python at *path* that is this one, but makes environments at once, and may lack ensurepip."""
    lacking = "" if ensurepip else "*ensurepip*) exit 1;;"
    script(path, f'case "$*" in "-m venv"*) : > "$3"; exit;; {lacking} esac; exec {sys.executable} "$@"')


def test_a_machine_without_python_is_told_so_in_one_sentence(tmp_path: Path) -> None:
    ran = make_venv(tmp_path, tmp_path / "venv")

    assert ran.returncode == 1
    assert ran.stderr.startswith("No Python 3.11 or newer was found as ")
    assert len(ran.stderr.splitlines()) == 1


def test_an_old_python_and_a_broken_shim_are_passed_over(tmp_path: Path) -> None:
    script(tmp_path / "python3.13", "echo 'no such version' >&2; exit 127")
    script(tmp_path / "python3.12", "exit 1")
    stand_in(tmp_path / "python3", ensurepip=True)

    ran = make_venv(tmp_path, tmp_path / "venv")

    assert (ran.returncode, ran.stderr) == (0, "")
    assert (tmp_path / "venv").exists()


def test_a_python_without_venv_names_the_package_that_is_missing(tmp_path: Path) -> None:
    stand_in(tmp_path / "python3", ensurepip=False)
    script(tmp_path / "id", "echo 1000")

    ran = make_venv(tmp_path, tmp_path / "venv")

    package = f"python3.{sys.version_info.minor}-venv"
    assert ran.returncode == 1
    assert ran.stderr == (
        f"python3 cannot make virtual environments here; install the package {package} "
        f"(Debian: apt-get install {package}) and try again.\n"
    )


def test_root_on_debian_gets_the_missing_package_without_being_asked(tmp_path: Path) -> None:
    done = tmp_path / "installed"
    stand_in(tmp_path / "python3", ensurepip=False)
    script(tmp_path / "id", "echo 0")
    script(tmp_path / "apt-get", f'echo "$@" >> {done}')

    ran = make_venv(tmp_path, tmp_path / "venv")

    assert ran.returncode == 0
    assert (tmp_path / "venv").exists()
    assert f"install -y -qq --no-install-recommends python3.{sys.version_info.minor}-venv" in done.read_text()


def test_ci_is_a_program_that_bash_can_read() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)


# --- the wheel ------------------------------------------------------------------------------------------


OF_THE_WORKER = {  # they need `train`, and the last one `ray` as well
    *("adapter_gguf", "base", "checkpoint", "device", "lora", "memory", "readings", "recipes", "rows", "sampling"),
    *("together", "tree", "watch", "on_ray"),
}
WALK = """
import importlib, json, pkgutil, gainful
lacking = {}
for module in pkgutil.walk_packages(gainful.__path__, "gainful."):
    try:
        importlib.import_module(module.name)
        lacking[module.name] = None
    except ModuleNotFoundError as error:
        lacking[module.name] = error.name
print(json.dumps(lacking))
"""


@pytest.mark.slow
def test_the_wheel_installs_into_an_empty_environment_and_runs(tmp_path: Path) -> None:
    """Without the development extra: whatever the package imports must be among its dependencies."""
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".venv", ".git", "out", ".*_cache", "receipts"))
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", source], check=True)
    (wheel,) = (tmp_path / "dist").glob("gainful-*.whl")
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"

    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-input", wheel], check=True, stdin=subprocess.DEVNULL
    )

    ran = subprocess.run(
        [python.parent / "gainful", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "improve" in ran.stdout
    walked = subprocess.run(
        [python, "-W", "error", "-c", WALK], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lacking: dict[str, str | None] = json.loads(walked.stdout)
    assert len(lacking) >= len(list(ROOT.glob("gainful/*/*.py")))
    of_extras = {f"gainful.train.{name}" for name in OF_THE_WORKER} | {
        "gainful.store.postgres_database",
        "gainful.store.postgres_store",
    }
    assert {name for name, lack in lacking.items() if lack} <= of_extras
    assert {lack for lack in lacking.values() if lack} <= {
        "torch",
        "transformers",
        "peft",
        "gguf",
        "psycopg",
        "safetensors",
        "ray",
    }
    inside = subprocess.run(
        [python, "-m", "zipfile", "--list", wheel], capture_output=True, text=True, check=True
    ).stdout
    assert "gainful/py.typed" in inside
    assert "gainful/store/migrations_postgres/0001_first.sql" in inside
    assert re.search(r"licenses/LICENSE", inside)


@pytest.mark.parametrize("name", Improving.__struct_fields__)
def test_every_setting_of_improving_is_documented_with_its_default(name: str) -> None:
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{name}` \| ([^|]*) \|", text, re.MULTILINE)
    value = getattr(Improving(), name)

    if value in (None, (), {}, ""):
        assert row == "none"
    else:
        assert json.loads(row) == json.loads(json.dumps(value))


def test_the_notes_name_tests_that_exist() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    notes = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "notes").glob("*.md"))
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", notes))

    assert {name for name in named if f"def {name}(" not in tests} == set()
    assert all((ROOT / "tests" / file).is_file() for file in re.findall(r"test_[a-z0-9_]+\.py", notes))

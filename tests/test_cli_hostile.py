"""The command line in bad hands: one clear sentence, exit code 2, nothing lost, and Ctrl-C at any moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp.test_utils import unused_port
from shell import Shell, serving

pytestmark = pytest.mark.slow

IMPROVE = ("improve", "tasks.py:task", "--model", "openai:scripted", "--store", "s.db")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving(pause_s=0.01) as base_url:
        yield base_url


@pytest.fixture
def shell(tmp_path: Path, server: str) -> Shell:
    return Shell(tmp_path, server)


def sentence(ran: subprocess.CompletedProcess[str]) -> str:
    """The one line that was said, of a command that ended with status 2."""
    assert (ran.returncode, ran.stderr.startswith("gainful: ")) == (2, True), ran.stderr
    (line,) = ran.stderr.splitlines()
    return line


def task_file(shell: Shell, body: str, checks: str = "") -> None:
    """Write task.toml on 60 cases, and checks.py."""
    lines = [{"id": str(n), "input": f"Please add {n} and {n + 1000}.", "target": str(2 * n + 1000)} for n in range(60)]
    (shell.folder / "cases.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (shell.folder / "task.toml").write_text(f'name = "t"\ncases = "cases.jsonl"\n{body}')
    (shell.folder / "checks.py").write_text(checks)


OWN = '[answer]\nkind = "text"\n[[checks]]\nfunction = "checks.py:check"\n'


def test_ctrl_c_stops_a_run_says_how_to_go_on_and_the_same_command_does(shell: Shell) -> None:
    stopped = shell.interrupted("Where it starts", *IMPROVE)

    assert (stopped.returncode, len(stopped.stderr.splitlines())) == (3, 1)
    assert "the same command goes on from here" in stopped.stderr
    assert shell.gainful(*IMPROVE).returncode == 0


def test_ctrl_c_stops_a_run_in_a_notebook_too(shell: Shell) -> None:
    """A notebook calls us inside its loop, which leaves Ctrl-C to Python: it reaches the caller's thread, not ours."""
    code = """
import asyncio, os, signal, threading, time
import gainful
from worlds import sums, scripted, needs_a_schema
class Slow(type(scripted())):
    async def complete(self, body, *, sample=0):
        await asyncio.sleep(0.05)
        return await super().complete(body, sample=sample)
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
async def cell():
    started = time.monotonic()
    try:
        gainful.improve(sums(), Slow(needs_a_schema), "s.db")
    except gainful.GainfulError as error:
        print(type(error).__name__, time.monotonic() - started < 5)
loop = asyncio.new_event_loop()
loop.run_until_complete(cell())
loop.close()
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (ran.stdout, ran.stderr) == ("Stopped True\n", "")


def test_a_model_of_the_caller_s_leaves_nothing_open_and_answers_again(shell: Shell) -> None:
    code = f"""
import gainful
from gainful.models import OpenAIModel
from worlds import sums
model = OpenAIModel("scripted", {shell.environment["OPENAI_BASE_URL"]!r})
for cases in (4, 8):
    print(gainful.evaluate(sums(), model, store="s.db", cases=cases).score.n)
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (ran.stdout, ran.stderr) == ("4\n8\n", "")


def test_json_holds_nothing_but_the_result_whatever_a_check_prints(shell: Shell) -> None:
    task_file(shell, OWN, "def check(case, answer):\n    print('looking')\n    return 1.0\n")

    found = shell.json("eval", "task.toml", "--model", "openai:scripted", "--cases", "2", "--store", "s.db")

    assert found["task"] == "t"


def test_every_command_gives_its_result_as_json(shell: Shell) -> None:
    made = shell.json("init", "my task")
    run = shell.json(*IMPROVE)
    receipt = str(run["finished"]["receipt"])  # type: ignore[index]
    page = shell.json("report", str(run["run"]), "--store", "s.db")

    assert made == {"task": "my task/task.toml"}
    assert page == {"page": run["page"]}
    assert Path(str(run["page"])).is_file()
    assert shell.json("verify", receipt)["holds"] is True
    assert shell.json("reproduce", receipt, "--task", "tasks.py:task")["compatible"] is True


def test_a_run_is_reported_from_another_folder_with_its_receipt(shell: Shell) -> None:
    run = shell.json(*IMPROVE)
    elsewhere = shell.folder / "elsewhere"
    elsewhere.mkdir()
    store, shell.folder = str(shell.folder / "s.db"), elsewhere

    page = Path(str(shell.json("report", str(run["run"]), "--store", store, "-o", "page.html")["page"]))

    assert "does not hold" not in page.read_text()
    assert Path(str(run["finished"]["receipt"])).is_absolute()  # type: ignore[index]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("exit(3)", "SystemExit"),
        ("float('nan')", "nan"),
        ("1.01", "1.01"),
        ("'yes'", "'yes'"),
    ],
)
def test_a_check_that_fails_is_named_with_the_case(shell: Shell, returned: str, said: str) -> None:
    task_file(shell, OWN, f"def check(case, answer):\n    return {returned}\n")

    told = sentence(shell.gainful("eval", "task.toml", "--model", "openai:scripted", "--store", "s.db"))

    assert said in told
    assert "check 'check'" in told
    assert "(cases.jsonl:" in told


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('[answer]\nkind = "choice"\nlabels = ["1000", "x"]\n[[checks]]\nkind = "choice"\n', "none of the labels"),
        ('[answer]\nkind = "text"\n[[checks]]\nfunction = "checks.py:absent"\n', "checks.py has no 'absent'"),
        ('checks = []\n[answer]\nkind = "text"\n', "no check to learn from"),
    ],
)
def test_a_task_that_cannot_work_is_refused_before_any_call(shell: Shell, body: str, said: str) -> None:
    task_file(shell, body)
    shell.environment["OPENAI_BASE_URL"] = f"http://127.0.0.1:{unused_port()}/v1"  # a call would fail otherwise

    assert said in sentence(shell.gainful("improve", "task.toml", "--model", "openai:scripted", "--store", "s.db"))


def test_a_task_without_a_name_is_refused(shell: Shell) -> None:
    task_file(shell, OWN, "def check(case, answer):\n    return 1.0\n")
    path = shell.folder / "task.toml"
    path.write_text(path.read_text().replace('"t"', '" "'))

    assert "the task has no name" in sentence(shell.gainful("eval", "task.toml", "--model", "openai:scripted"))


def test_no_trusted_check_is_told_before_any_call_and_explored_all_the_same(shell: Shell) -> None:
    task_file(shell, '[answer]\nkind = "text"\n[[checks]]\nkind = "agreement"\n')

    ran = shell.gainful("improve", "task.toml", "--model", "openai:scripted", "--store", "s.db", "--budget", "20")

    assert ran.returncode == 0, ran.stderr
    said, start = ran.stdout.index("can only explore"), ran.stdout.index("Where it starts")
    assert said < start
    assert "No check could judge any of its answers" in ran.stdout


@pytest.mark.parametrize("place", ["tasks.py/s.db", "/proc/nowhere/s.db", "."])
def test_a_store_that_cannot_be_made_is_one_sentence(shell: Shell, place: str) -> None:
    told = sentence(shell.gainful("eval", "tasks.py:task", "--model", "openai:scripted", "--store", place))

    assert "store" in told


def test_a_home_that_cannot_be_written_is_one_sentence(shell: Shell) -> None:
    shell.environment["HOME"] = "/proc"

    assert "XDG_DATA_HOME" in sentence(shell.gainful("eval", "tasks.py:task", "--model", "openai:scripted"))
    assert "XDG_CACHE_HOME" in sentence(shell.gainful("eval", "bfcl:simple_python", "--store", "s.db"))


@pytest.mark.parametrize("kilobytes", [16, 64, 200, 400])
def test_a_disk_that_fills_up_loses_nothing_and_the_same_command_ends_the_run(shell: Shell, kilobytes: int) -> None:
    """A limit on the size of files stands for the disk; every call is answered once, before or after."""
    command = f"ulimit -f {kilobytes}; exec {sys.executable} -m gainful.cli {' '.join(IMPROVE)}"
    full = subprocess.run(
        ["bash", "-c", command], cwd=shell.folder, env=shell.environment, capture_output=True, text=True
    )

    assert "s.db" in sentence(full)
    assert shell.json(*IMPROVE)["holds"] is True


def test_a_disk_full_at_the_receipt_leaves_the_promotion_and_the_receipt_to_the_same_command(shell: Shell) -> None:
    (shell.folder / "receipts").write_text("a file where the folder should be")

    assert "receipts" in sentence(shell.gainful(*IMPROVE))
    os.unlink(shell.folder / "receipts")
    again = shell.json(*IMPROVE)

    assert (again["finished"]["promoted"], again["holds"]) == (True, True)  # type: ignore[index]


def test_a_store_of_random_bytes_or_cut_short_is_one_sentence_and_left_alone(shell: Shell) -> None:
    assert shell.gainful("eval", *IMPROVE[1:]).returncode == 0
    path = shell.folder / "s.db"
    for damaged in (path.read_bytes()[:9000], os.urandom(20_000)):
        path.write_bytes(damaged)

        assert "s.db" in sentence(shell.gainful(*IMPROVE))
        assert path.read_bytes() == damaged


def test_a_server_that_cannot_be_reached_is_one_sentence(shell: Shell) -> None:
    shell.environment["OPENAI_BASE_URL"] = f"http://127.0.0.1:{unused_port()}/v1"

    assert "cannot be reached" in sentence(shell.gainful(*IMPROVE))

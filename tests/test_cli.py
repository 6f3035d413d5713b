"""The command line as a user meets it: real processes, a real HTTP server, real exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from shell import Shell, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as base_url:
        yield base_url


@pytest.fixture
def shell(tmp_path: Path, server: str) -> Shell:
    return Shell(tmp_path, server)


def test_improve_then_verify_report_and_a_receipt_that_was_touched(shell: Shell) -> None:
    told = shell.gainful("improve", "tasks.py:task", "--model", "openai:scripted", "--store", "s.db")

    assert told.returncode == 0, told.stderr
    for words in ("cannot be certified", "not JSON", "Promoted", "The receipt holds", ".html"):
        assert words in told.stdout
    (receipt,) = (shell.folder / "receipts").iterdir()
    verified = shell.gainful("verify", str(receipt))
    assert (verified.returncode, "failed" in verified.stdout) == (0, False)
    (page,) = (shell.folder / "reports").iterdir()
    assert "<html" in page.read_text()
    pairs = receipt / "pairs.jsonl"
    pairs.write_bytes(pairs.read_bytes().replace(b'"challenger":0', b'"challenger":1', 1))
    assert shell.gainful("verify", str(receipt)).returncode == 1
    pairs.unlink()
    assert shell.gainful("verify", str(receipt)).returncode in (1, 2)


def test_the_same_command_again_starts_from_the_new_champion(shell: Shell) -> None:
    words = ("improve", "tasks.py:task", "--model", "openai:scripted", "--store", "s.db")
    first, again = shell.json(*words), shell.json(*words)

    assert first["run"] != again["run"]
    assert first["finished"]["promoted"] is True  # type: ignore[index]
    assert first["holds"] is True


def test_reproduce_finds_the_same_result_with_the_same_model(shell: Shell) -> None:
    found = shell.json("improve", "tasks.py:task", "--model", "openai:scripted", "--store", "s.db")

    receipt = found["finished"]["receipt"]  # type: ignore[index]
    refused = shell.gainful("reproduce", receipt)
    assert refused.returncode == 2
    assert "loading a file may run it" in refused.stderr
    again = shell.json("reproduce", receipt, "--task", "tasks.py:task")

    assert again["compatible"] is True
    assert again["identical"] == again["outputs"]


def test_eval_prints_a_score_with_its_interval(shell: Shell) -> None:
    ran = shell.gainful("eval", "tasks.py:task", "--model", "openai:scripted", "--store", "s.db")

    assert ran.returncode == 0, ran.stderr
    assert "by the proof checks" in ran.stdout
    assert "0 % (0–" in ran.stdout


def test_calibrate_and_audit_say_which_corrections_are_open_and_why(shell: Shell) -> None:
    words = ("tasks.py:task", "--model", "openai:scripted", "--store", "s.db")

    ran = shell.gainful("calibrate", *words, "--cases", "20", "--methods", "reask,vote")
    content = shell.json("audit", *words)

    assert ran.returncode == 0, ran.stderr
    assert "20 drafts with a known truth, 20 wrong, 20 suspected" in ran.stdout
    assert "No detector was fitted: of 20 answers" in ran.stdout
    assert "reask is closed: 20 trials: 0 fixed" in ran.stdout
    assert [m["n"] for m in content["methods"]] == [20, 0, 20, 0]  # type: ignore[attr-defined]


def test_a_method_of_correction_that_is_none_is_refused_by_name(shell: Shell) -> None:
    ran = shell.gainful("calibrate", "tasks.py:task", "--model", "openai:scripted", "--methods", "pray")

    assert ran.returncode == 2
    assert "'pray' is no method of correction" in ran.stderr


def test_init_writes_a_task_that_loads(shell: Shell) -> None:
    assert shell.gainful("init", "mine").returncode == 0

    again = shell.gainful("init", "mine")

    assert (shell.folder / "mine" / "task.toml").exists()
    assert again.returncode == 2
    assert "choose a folder that is not there yet" in again.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("improve", "nowhere.toml"), "nowhere.toml"),
        (("improve", "bfcl:nothing"), "choose one of"),
        (("improve", "tasks.py:absent"), "absent"),
        (("improve", "tasks.py:task", "--model", "claude"), "unknown model 'claude'"),
        (("improve", "tasks.py:task", "--model", "gguf:tasks.py"), "tasks.py"),
        (("improve", "tasks.py:task", "--weights", "--train-launch", "ray:many"), "give ray:WORKERS"),
        (("improve", "tasks.py:task", "--weights", "--train-recipe", "rnk=8"), "changes no recipe"),
        (
            ("improve", "tasks.py:task", "--weights", "--train-minutes", "0"),
            "a training of 0 minutes learns nothing; give it more than 0",
        ),
        (("improve", "tasks.py:task", "--train-minutes", "5"), "nothing is to be trained; add --weights"),
        (("improve", "tasks.py:task", "--weights", "--cheaper", "--train-method", "rewards"), "leave one of the two"),
        (("verify", "nowhere"), "nowhere"),
        (("report", "abcdef12", "--store", "nowhere.db"), "there is no store"),
        (("report",), "report was given no run"),
        (("report", "--live", "nowhere.db"), "there is no store at 'nowhere.db'"),
        (("improve", "tasks.py:task", "--model", "openai:scripted", "--store", "tasks.py"), "tasks.py"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(shell: Shell, words: tuple[str, ...], sentence: str) -> None:
    ran = shell.gainful(*words)

    assert ran.returncode == 2
    assert ran.stderr.startswith("gainful: ")
    assert sentence in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert "Traceback" not in ran.stderr


def test_a_hold_out_too_small_is_said_and_explored_all_the_same(shell: Shell) -> None:
    ran = shell.gainful("improve", "tasks.py:tiny", "--model", "openai:scripted", "--store", "s.db")

    assert ran.returncode == 0, ran.stderr
    assert "can only explore" in ran.stdout


def test_a_time_limit_stops_cleanly_and_the_same_command_goes_on(shell: Shell) -> None:
    words = ("improve", "tasks.py:task", "--model", "openai:scripted", "--store", "s.db")

    stopped = shell.gainful(*words, "--minutes", "0.002")

    assert stopped.returncode == 3
    assert "goes on from here" in stopped.stderr
    assert shell.gainful(*words).returncode == 0

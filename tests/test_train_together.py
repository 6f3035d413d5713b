"""Two processes that train one adapter together, on CPUs over gloo: the same trainers and launcher as on GPUs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gainful.core import TrainError
from gainful.models.adapters import CONFIG, WEIGHTS, find_adapter
from gainful.train import Launched, Lesson, Limits, OnRay, Progress, Question, Recipe, Work, fine_tune, missing
from gainful.train.extra import ON_RAY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("apart"),
    pytest.mark.skipif(missing() is not None, reason="it needs the extra `train`"),
]

HERE = Path(__file__).parent
SETTINGS = (
    "--multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0 --mixed_precision no --dynamo_backend no"
)
TWO = Limits(minutes=10.0, processes=Launched(tuple(SETTINGS.split())))
LESSONS = tuple(
    Lesson(messages=({"role": "user", "content": f"{n} + 1"},), reply=str(n + 1), case=f"case {n}") for n in range(16)
)
WORK = Work(
    base="tiny",
    material=LESSONS,
    recipe=Recipe(rank=8, alpha=32.0, batch=4, learning_rate=0.01, epochs=2.0, patience=0),
)


needs_ray = pytest.mark.skipif(missing(ON_RAY) is not None, reason="it needs the extra `ray` (80 MB)")


def test_two_learn_what_one_does_and_go_on_where_one_of_them_was_killed(
    base: Path, apart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Progress] = []

    def kill_the_second(step: Progress) -> None:
        heard.append(step)
        if step.step == 3:
            os.kill(_second(str(apart / WORK.id)), signal.SIGKILL)

    with pytest.raises(TrainError, match="the trainer was killed, as a machine without memory does; ask again"):
        fine_tune(WORK, base, TWO, watch=kill_the_second)
    first = [step.step for step in heard]
    heard.clear()
    resumed = fine_tune(WORK, base, TWO, watch=heard.append)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another cache"))
    whole = fine_tune(WORK, base, TWO)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a third cache"))
    alone = fine_tune(WORK, base, Limits(minutes=10.0))

    assert first == list(range(1, len(first) + 1))
    assert [step.step for step in heard] == list(range(heard[0].step, 9))
    assert heard[0].step > 1
    assert resumed.adapter == whole.adapter
    assert resumed.steps == whole.steps
    assert [one.tokens for one in whole.steps] == [one.tokens for one in alone.steps]
    assert [one.loss for one in whole.steps[:3]] == pytest.approx([one.loss for one in alone.steps[:3]], abs=0.01)
    assert _shapes(find_adapter(whole.adapter)) == _shapes(find_adapter(alone.adapter))
    assert whole.peak_memory_bytes > 1.5 * alone.peak_memory_bytes


def test_rewards_of_all_are_asked_for_once_in_whole_groups(base: Path) -> None:
    """Twelve replies to a case, of which each process makes six: every process sees half of one group."""
    questions = tuple(Question(messages=one.messages, case=one.case, max_tokens=4) for one in LESSONS[:4])
    settings = Recipe(method="grpo", rank=8, batch=12, samples=12, learning_rate=0.01, epochs=1.0)
    asked: list[tuple[str, int]] = []

    def reward(case: str, replies: Sequence[str]) -> list[float]:
        asked.append((case, len(replies)))
        return [float(place) for place, _ in enumerate(replies)]

    trained = fine_tune(Work(base="tiny", material=questions, recipe=settings), base, TWO, reward=reward)

    assert sorted(asked) == [(one.case, 12) for one in questions]
    assert [step.reward for step in trained.steps] == [5.5] * 4


@needs_ray
def test_on_ray_two_workers_train_and_ask_the_parent_for_rewards(base: Path) -> None:
    questions = tuple(Question(messages=one.messages, case=one.case, max_tokens=4) for one in LESSONS[:4])
    settings = Recipe(method="grpo", rank=8, batch=4, samples=4, learning_rate=0.01, epochs=1.0)
    heard: list[int] = []
    asked: list[tuple[str, int]] = []

    def reward(case: str, replies: Sequence[str]) -> list[float]:
        asked.append((case, len(replies)))
        return [float(place) for place, _ in enumerate(replies)]

    trained = fine_tune(
        Work(base="tiny", material=questions, recipe=settings),
        base,
        Limits(minutes=10.0, processes=OnRay(2)),
        watch=lambda step: heard.append(step.step),
        reward=reward,
    )

    assert heard == [1, 2, 3, 4]
    assert sorted(asked) == [(one.case, 4) for one in questions]
    assert (find_adapter(trained.adapter) / WEIGHTS).is_file()


@needs_ray
def test_more_workers_than_ray_has_cores_are_refused_rather_than_waited_for(base: Path) -> None:
    with pytest.raises(TrainError, match=r"cores for 1000 workers and would wait for more; take fewer workers"):
        fine_tune(WORK, base, Limits(processes=OnRay(1000)))


def test_a_batch_that_cannot_be_dealt_out_is_refused(base: Path) -> None:
    odd = msgspec.structs.replace(WORK, recipe=msgspec.structs.replace(WORK.recipe, batch=5))

    with pytest.raises(TrainError, match=r"5 sequences a step cannot be dealt out to 2 processes; take a multiple"):
        fine_tune(odd, base, TWO)


def test_those_who_share_a_model_out_decide_alike_and_gather_its_adapter(base: Path, tmp_path: Path) -> None:
    """One clock is ahead, then one part of a gradient is not a number: both processes stop, and take no step."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run([*launcher, HERE / "sharded.py", base, tmp_path], check=False, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stderr[-2000:]
    saw = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert all(one["is_late"] and one["stops"] and not one["is_taken"] for one in saw)
    assert all(one["share"] < 0.6 for one in saw)
    assert all(one["is_whole"] and one["names"] == one["wanted"] for one in saw)
    assert set(_shapes(tmp_path / "adapter").values()) > {(7, 64), (64, 7)}


def _second(argument: str) -> int:
    """Return the id of the second of the processes that have *argument* in their command line."""
    for process in Path("/proc").glob("[0-9]*"):
        with_rank = b"\0RANK=1\0" in b"\0" + _read(process / "environ")
        if with_rank and argument.encode() in _read(process / "cmdline"):
            return int(process.name)
    raise AssertionError("there is no second process")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


def _shapes(adapter: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight in an adapter's file: a length, a JSON header, the data."""
    assert json.loads((adapter / CONFIG).read_text())["r"] in (7, 8)
    data = (adapter / WEIGHTS).read_bytes()
    header: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {name: tuple(one["shape"]) for name, one in header.items() if name != "__metadata__"}

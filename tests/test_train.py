"""Training asked for and told: what needs no torch."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gainful.core import Adapter, Stopped, TrainError
from gainful.models.files import cache_folder
from gainful.train import (
    Lesson,
    Limits,
    Material,
    OnRay,
    Preference,
    Question,
    Reading,
    Recipe,
    Stop,
    Work,
    fine_tune,
    forget_words,
    missing,
    parity,
    processes,
    read_prompts,
)
from gainful.train.card import card
from gainful.train.extra import ON_RAY
from gainful.train.folders import alone, sweep
from gainful.train.jobs import Progress
from gainful.train.orders import Fitted
from gainful.train.parity import MOST_DIFFERENCE

LESSON = Lesson(messages=({"role": "user", "content": "1 + 1"},), reply="2")
has_extra = missing() is None


def test_importing_the_room_loads_no_torch() -> None:
    says = "import sys, gainful.train; sys.exit(len({'torch', 'transformers', 'trl', 'peft'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", says], check=False).returncode == 0


def test_packages_that_are_absent_or_too_old_are_named_with_the_line_that_installs_them() -> None:
    assert missing({"msgspec": "0.1"}) is None
    assert missing({"no-such-thing": "2.0", "msgspec": "99.1"}) is not None
    sentence = str(missing({"no-such-thing": "2.0", "msgspec": "99.1"}))
    assert sentence.startswith("training needs no-such-thing and finds msgspec ")
    assert sentence.endswith("too old; run `pip install 'gainful[train]'`")


def test_the_memory_of_a_program_is_its_own_and_not_that_of_the_one_that_started_it() -> None:
    says = "from gainful.train.worker import most_held_bytes; held = b'1' * 30_000_000; print(most_held_bytes())"
    large = b"1" * 500_000_000

    found = subprocess.run([sys.executable, "-c", says], capture_output=True, check=True)

    assert 30_000_000 < int(found.stdout) < len(large)


def test_what_nobody_has_asked_for_in_a_month_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folders = {name: cache_folder() / name for name in ("training/old", "training/busy", "training/new", "answers/old")}
    for name, folder in folders.items():
        (folder / "checkpoint-1").mkdir(parents=True)
        (folder / "checkpoint-1" / "whole.json").write_text("{}")
        (folder / "answer.json").write_text("{}")
        (folder / "lock").touch()
        asked = 1e9 if name.endswith("new") else 1e9 - 31 * 86400.0
        os.utime(folder / "lock", (asked, asked))

    with (folders["training/busy"] / "lock").open() as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        sweep(1e9)

    left = {str(path.parent.relative_to(cache_folder())) for path in cache_folder().glob("*/*/answer.json")}
    assert left == {"training/busy", "training/new"}
    assert [path.name for path in folders["training/old"].iterdir()] == ["lock"]


def test_what_is_stopped_before_it_begins_begins_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process does the same work; who waits for it is stopped."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    stop, folder = Stop(), tmp_path / "work"
    folder.mkdir()
    stop.set()

    with (folder / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Stopped, match="training was stopped"), alone(folder, stop):
            pass


def test_words_that_are_kept_are_forgotten_but_for_what_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = {"training/done": "order.json", "answers/done": "answer.json", "answers/busy": "order.json"}
    for place, name in kept.items():
        folder = cache_folder() / place
        folder.mkdir(parents=True)
        (folder / "lock").touch()
        (folder / name).write_text("What a caller said.")
    (cache_folder() / "training" / "done" / "trained.json").write_text("{}")

    with (cache_folder() / "answers" / "busy" / "lock").open("w") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        forget_words()

    left = {str(file.relative_to(cache_folder())) for file in cache_folder().glob("*/*/*.json")}
    assert left == {"training/done/trained.json", "answers/busy/order.json"}


@pytest.mark.skipif(not has_extra, reason="without the extra `train` that is what is said first")
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"material": ()}, "there is no lesson to learn from; sample more replies"),
        ({"recipe": Recipe(method="dpo")}, "the recipe 'dpo' learns from preferences; the material holds ['lesson']"),
        ({"start": Adapter(sha256="a" * 64, base="other", rank=4, alpha=8.0)}, "was made for base other, not this"),
    ],
)
def test_a_work_that_cannot_be_done_is_refused_before_anything_is_loaded(changed: dict[str, Any], words: str) -> None:
    fields: dict[str, Any] = {"base": "this", "material": (LESSON,), **changed}

    with pytest.raises(TrainError, match=words.replace("[", r"\[").replace("]", r"\]")):
        fine_tune(Work(**fields), "a/base", Limits())


@pytest.mark.skipif(not has_extra, reason="without the extra `train` that is what is said first")
def test_another_base_than_the_one_that_is_served_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.gguf"
    file.write_bytes(b"GGUF of another model entirely")

    with pytest.raises(TrainError, match="where the work names this; train on the file that is served"):
        fine_tune(Work(base="this", material=(LESSON,)), file, Limits())


@pytest.mark.skipif(not has_extra, reason="without the extra `train` that is what is said first")
def test_rewards_need_someone_who_gives_them() -> None:
    asked = Work(base="b", material=(Question(messages=LESSON.messages, case="c"),), recipe=Recipe(method="grpo"))

    with pytest.raises(TrainError, match="give a reward, made of trusted checks"):
        fine_tune(asked, "a/base", Limits())


def test_no_worker_of_rays_is_no_training() -> None:
    with pytest.raises(TrainError, match="0 workers of Ray's cannot train anything; take 1 or more"):
        processes("ray:0")


@pytest.mark.skipif(not has_extra, reason="without the extra `train` that is what is said first")
@pytest.mark.skipif(missing(ON_RAY) is None, reason="Ray is here")
def test_an_absent_ray_is_named_with_the_line_that_installs_it() -> None:
    with pytest.raises(TrainError, match=r"training needs ray; run `pip install 'gainful\[ray\]'`"):
        fine_tune(Work(base="b", material=(LESSON,)), "a/base", Limits(processes=OnRay(2)))


@pytest.mark.skipif(not has_extra, reason="without the extra `train` that is what is said first")
def test_each_prompt_has_its_reply() -> None:
    with pytest.raises(TrainError, match="1 replies for 2 prompts"):
        read_prompts(None, "a/base", [[], []], ["one"])


@pytest.mark.parametrize(("others", "holds"), [(0, True), (1, True), (2, False)])
def test_parity_holds_when_95_of_100_greedy_answers_are_equal(others: int, holds: bool) -> None:
    trained = [Reading(greedy="7", logprobs=(-1.0, -2.0))] * 20
    same = [Reading(greedy=" 7\n", logprobs=(-1.0, -2.0))] * (20 - others)
    served = [Reading(greedy="8", logprobs=(-1.5, -2.0))] * others + same

    seen = parity(trained, served)

    assert seen.holds is holds
    assert seen.agreement == 1 - others / 20
    assert seen.largest_difference == (0.5 if others else 0.0)


@pytest.mark.parametrize(
    ("apart", "without", "holds"),
    [(MOST_DIFFERENCE - 0.01, 0, True), (MOST_DIFFERENCE + 0.01, 0, False), (0.0, 9, True), (0.0, 10, False)],
)
def test_parity_holds_where_most_replies_are_about_as_likely(apart: float, without: int, holds: bool) -> None:
    """*without*: of 20 replies so many came without log-probabilities, which are unknown then, not equal."""
    trained = [Reading(greedy="7", logprobs=(0.0,))] * 20
    served = [Reading(greedy="7", logprobs=(-apart,))] * (20 - without) + [Reading(greedy="7")] * without

    seen = parity(trained, served)

    assert seen.holds is holds
    assert seen.compared == 20 - without
    assert seen.agreement == 1.0


def test_nothing_compared_is_no_parity() -> None:
    assert not parity([], []).holds


def test_a_work_is_named_by_all_it_is_made_of() -> None:
    works = [
        Work(base="b", material=(LESSON,)),
        Work(base="c", material=(LESSON,)),
        Work(base="b", material=(LESSON, LESSON)),
        Work(base="b", material=(LESSON,), recipe=Recipe(rank=8)),
        Work(base="b", material=(LESSON,), seed=1),
    ]

    assert len({work.id for work in works}) == len(works)
    assert works[0].id == Work(base="b", material=(LESSON,)).id


def test_a_card_says_what_went_in_and_claims_nothing() -> None:
    pair = Preference(messages=LESSON.messages, chosen="2", rejected="3")
    material: tuple[Material, ...] = (LESSON, LESSON, pair)
    steps = (Progress(step=1, steps=2, loss=3.25), Progress(step=2, steps=2, loss=1.5))
    work = Work(base="b" * 64, material=material, recipe=Recipe(epochs=2.0))

    text = card(work, Fitted(steps=steps, seconds=1.0, tokens=10, stopped="early"))

    assert "| material | 2 lessons, 1 preference; digest" in text
    assert "| loss | 3.2500 at the first step, 1.5000 at the last |" in text
    assert "| steps | 2, stopped: early |" in text
    assert work.id in text
    assert "no evidence" in text

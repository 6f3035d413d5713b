"""Training itself, on a llama of a few thousand weights: the same trainers, files and processes as on a real one."""

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import pytest

from gainful.core import TrainError
from gainful.loop.trainer import BaseTrainer
from gainful.models.adapters import find_adapter, trained_on
from gainful.train import (
    Lesson,
    Limits,
    Preference,
    Progress,
    Question,
    Recipe,
    Sampling,
    Work,
    fine_tune,
    missing,
    read_prompts,
    sample_replies,
)
from gainful.train.orders import Sample

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("apart"),
    pytest.mark.skipif(missing() is not None, reason="it needs the extra `train`"),
]

LIMITS = Limits(minutes=5.0)


def lessons(count: int) -> tuple[Lesson, ...]:
    return tuple(
        Lesson(messages=({"role": "user", "content": f"{n} + 1"},), reply=str(n + 1), case=f"case {n}")
        for n in range(count)
    )


def work(count: int = 16, seed: int = 0, **recipe: Any) -> Work:
    settings = {"rank": 8, "alpha": 32.0, "batch": 4, "learning_rate": 0.01, "epochs": 4.0, "patience": 0, **recipe}
    return Work(base="tiny", material=lessons(count), recipe=Recipe(**settings), seed=seed)


def test_an_adapter_is_trained_kept_whole_and_not_trained_again(base: Path, apart: Path) -> None:
    heard: list[Progress] = []

    trained = fine_tune(work(), base, LIMITS, watch=heard.append)
    base_is_gone = base.with_name("nowhere")
    again = fine_tune(work(), base_is_gone, LIMITS)

    assert [step.step for step in heard] == list(range(1, 17))
    assert trained.steps == tuple(heard)
    assert heard[-1].loss is not None
    assert heard[0].loss is not None
    assert heard[-1].loss < heard[0].loss * 0.8
    assert trained.stopped == ""
    assert trained.tokens == heard[-1].tokens > 0
    assert trained.peak_memory_bytes > 50_000_000
    kept = find_adapter(trained.adapter)
    assert {file.name for file in kept.iterdir()} >= {"adapter_model.safetensors", "adapter_config.json", "README.md"}
    assert str(base) not in (kept / "adapter_config.json").read_text()
    assert (trained.adapter.rank, trained.adapter.alpha, trained.adapter.gguf) == (8, 32.0, "")
    assert again == trained
    assert not list((apart / trained.work).glob("checkpoint-*"))
    assert trained_on(trained.adapter) == {one.case for one in lessons(16)}
    assert not list(apart.rglob("order.json"))


KILLED = """
    import os, signal, sys, msgspec
    from pathlib import Path
    from gainful.train import Limits, Work, fine_tune

    work = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Work)
    fine_tune(work, sys.argv[2], Limits(minutes=5.0), watch=lambda step: step.step == 6 and os.kill(0, signal.SIGKILL))
"""


def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(
    base: Path, apart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parent and worker are killed after six steps; the last checkpoint is of the first."""
    wanted = work(epochs=2.0)
    (tmp_path / "work.json").write_bytes(msgspec.json.encode(wanted))
    parent = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), tmp_path / "work.json", base],
        start_new_session=True,
        check=False,
    )
    checkpoints = [path.name for path in (apart / wanted.id).glob("checkpoint-*")]
    heard: list[Progress] = []

    resumed = fine_tune(wanted, base, LIMITS, watch=heard.append)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another cache"))
    whole = fine_tune(wanted, base, LIMITS)

    assert parent.returncode == -signal.SIGKILL
    assert checkpoints == ["checkpoint-1"]
    assert not list(apart.rglob("order.json"))
    assert [step.step for step in heard] == list(range(2, 9))
    assert [step.step for step in resumed.steps] == list(range(1, 9))
    assert resumed.adapter == whole.adapter
    assert resumed.steps == whole.steps


def test_a_worker_that_is_killed_is_one_sentence(base: Path, apart: Path) -> None:
    """As a machine does that has no memory left."""
    wanted = work(epochs=2000.0)

    def kill(step: Progress) -> None:
        if step.step < 2:
            return  # the first checkpoint comes after it
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            if str(apart / wanted.id) in _read(process):
                os.kill(int(process.parent.name), signal.SIGKILL)

    with pytest.raises(
        TrainError, match="the trainer was killed, as a machine without memory does; ask again and it goes on"
    ):
        fine_tune(wanted, base, LIMITS, watch=kill)


def test_time_that_is_up_ends_training_with_what_there_is_and_more_time_goes_on(base: Path, apart: Path) -> None:
    wanted = work(epochs=2.0)

    short = fine_tune(wanted, base, Limits(minutes=1e-6))
    long = fine_tune(wanted, base, LIMITS)

    assert (short.stopped, len(short.steps)) == ("time", 1)
    assert (long.stopped, len(long.steps)) == ("", 8)
    assert short.steps == long.steps[:1]
    assert short.adapter.sha256 != long.adapter.sha256


def test_where_a_step_is_not_finite_the_weights_are_the_last_with_which_one_was(base: Path) -> None:
    """The first step has a learning rate of 0, the second spoils the weights, so the third is no number."""
    wanted = work(learning_rate=1e30, epochs=8.0)
    prompts, replies = [one.messages for one in lessons(16)], [one.reply for one in lessons(16)]

    trained = fine_tune(wanted, base, LIMITS)

    folder = find_adapter(trained.adapter)
    assert (trained.stopped, len(trained.steps)) == ("nan", 2)
    assert _all_finite((folder / "adapter_model.safetensors").read_bytes())
    tuned, plain = (read_prompts(where, base, prompts, replies, 0) for where in (folder, None))
    assert [one.logprobs for one in tuned] == [one.logprobs for one in plain]  # nothing was learned in the first


def test_where_nothing_was_learned_before_a_step_that_is_not_finite_it_is_said(base: Path) -> None:
    """What the adapter adds is scaled by more than there are numbers for."""
    with pytest.raises(TrainError, match=r"by step 1 the loss or the gradients are not finite at learning rate 0\.01"):
        fine_tune(work(alpha=1e40), base, LIMITS)


def test_a_worker_that_is_killed_while_its_replies_are_judged_is_one_sentence(base: Path, apart: Path) -> None:
    questions = tuple(Question(messages=one.messages, case=one.case, max_tokens=8) for one in lessons(8))
    settings = Recipe(method="grpo", rank=8, batch=8, samples=8, epochs=2.0)
    wanted = Work(base="tiny", material=questions, recipe=settings)

    def reward(case: str, replies: Sequence[str]) -> list[float]:
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            if str(apart / wanted.id) in _read(process):
                os.kill(int(process.parent.name), signal.SIGKILL)
        assert _gone(str(apart / wanted.id))
        return [0.0] * len(replies)

    with pytest.raises(TrainError, match="the trainer was killed, as a machine without memory does; free some memory"):
        fine_tune(wanted, base, LIMITS, reward=reward)

    assert not list(apart.rglob("order.json"))


def test_a_training_that_is_cancelled_ends_at_once_and_keeps_its_checkpoint(base: Path, apart: Path) -> None:
    """As Ctrl-C and a time limit do it; the loop waits for the thread that trains."""
    wanted = work(epochs=2000.0)

    async def cancelled() -> None:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        assert task is not None

        def watch(step: Progress) -> None:
            if step.step == 3:
                loop.call_soon_threadsafe(task.cancel)

        await BaseTrainer(base, LIMITS).fine_tune(wanted, watch, lambda case, replies: [])

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())

    assert _gone(str(apart / wanted.id))
    assert [path.name for path in (apart / wanted.id).glob("checkpoint-*")] == ["checkpoint-1"]
    assert not list(apart.rglob("order.json"))


def test_training_stops_when_what_was_held_back_is_no_longer_learned(base: Path) -> None:
    """Replies without rhyme or reason are learned by heart, so the held-back tenth gets worse."""
    noise = tuple(msgspec.structs.replace(one, reply=str(hash((n, 3)) % 97)) for n, one in enumerate(lessons(40)))
    settings = Recipe(rank=8, alpha=32.0, batch=4, learning_rate=0.02, epochs=40.0, patience=2)

    trained = fine_tune(Work(base="tiny", material=noise, recipe=settings), base, LIMITS)

    assert trained.stopped == "early"
    assert len(trained.steps) < trained.steps[-1].steps


def test_what_is_learned_along_is_not_held_back(base: Path) -> None:
    """Of 20 cases 2 are, of 20 replies that were cut off none: 38 sequences take ten steps of four, 36 nine."""
    both = tuple(msgspec.structs.replace(one, is_cut=n % 2 == 0) for n, one in enumerate(lessons(40)))
    settings = Recipe(rank=8, batch=4, epochs=1.0)

    trained = fine_tune(Work(base="tiny", material=both, recipe=settings), base, LIMITS)

    assert len(trained.steps) == 10


def test_how_long_nothing_has_got_better_is_remembered_over_a_kill(
    base: Path, apart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 36 lessons four a step: nine steps an epoch, and a checkpoint after each of them."""
    noise = tuple(msgspec.structs.replace(one, reply=str(hash((n, 3)) % 97)) for n, one in enumerate(lessons(40)))
    settings = Recipe(rank=8, alpha=32.0, batch=4, learning_rate=0.02, epochs=40.0, patience=2)
    wanted = Work(base="tiny", material=noise, recipe=settings)
    whole = fine_tune(wanted, base, LIMITS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another cache"))

    def stop(step: Progress) -> None:
        if step.step == len(whole.steps) - 4:  # the last epoch's but one was no better, nor will this one be
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(wanted, base, LIMITS, watch=stop)
    resumed = fine_tune(wanted, base, LIMITS)

    assert resumed.steps == whole.steps
    assert resumed.adapter == whole.adapter


def test_too_little_memory_is_said_before_anything_is_loaded(base: Path) -> None:
    with pytest.raises(TrainError, match=r"training needs about 0\.5 GB of memory and 0\.1 GB are allowed; allow more"):
        fine_tune(work(), base, Limits(minutes=5.0, memory_bytes=100_000_000))
    with pytest.raises(TrainError, match=r"training needs about \d\.\d GB of memory and 0\.1 GB are allowed"):
        read_prompts(None, base, [lessons(1)[0].messages], memory_bytes=100_000_000)
    with pytest.raises(TrainError, match=r"training needs about \d\.\d GB of memory and 0\.1 GB are allowed"):
        sample_replies(None, base, [lessons(1)[0].messages], Sampling(1), memory_bytes=100_000_000)


def test_preferences_make_the_right_reply_likelier_than_the_wrong_one(base: Path) -> None:
    pairs = tuple(Preference(messages=one.messages, chosen="yes", rejected="no", case=one.case) for one in lessons(16))
    settings = Recipe(method="dpo", rank=8, batch=4, learning_rate=0.01, epochs=4.0, patience=0)
    prompts = [one.messages for one in pairs]

    trained = fine_tune(Work(base="tiny", material=pairs, recipe=settings), base, LIMITS)

    folder = find_adapter(trained.adapter)
    doubled, replies = [*prompts, *prompts], ["yes"] * 16 + ["no"] * 16
    tuned = [sum(one.logprobs) for one in read_prompts(folder, base, doubled, replies, 0)]
    plain = [sum(one.logprobs) for one in read_prompts(None, base, doubled, replies, 0)]
    gains = [after - before for after, before in zip(tuned, plain, strict=True)]
    assert trained.steps[0].loss == pytest.approx(math.log(2), abs=0.02)  # the adapter is the base's at first
    assert fmean(gains[:16]) > fmean(gains[16:]) + 1.0


def test_rewards_are_asked_of_the_parent_and_rise(base: Path) -> None:
    """A reply is worth the share of its characters that are letters."""
    questions = tuple(Question(messages=one.messages, case=one.case, max_tokens=8) for one in lessons(8))
    settings = Recipe(method="grpo", rank=8, batch=32, samples=16, learning_rate=0.01, epochs=6.0)
    asked: list[tuple[str, int]] = []

    def reward(case: str, replies: Sequence[str]) -> list[float]:
        asked.append((case, len(replies)))
        return [sum(map(str.isalpha, reply)) / max(1, len(reply)) for reply in replies]

    trained = fine_tune(Work(base="tiny", material=questions, recipe=settings), base, LIMITS, reward=reward)

    assert len(trained.steps) == 24
    assert {count for _, count in asked} == {16}
    assert {case for case, _ in asked} == {one.case for one in questions}
    first, last = (fmean(step.reward or 0.0 for step in some) for some in (trained.steps[:6], trained.steps[-6:]))
    assert last > first + 0.04


def test_an_adapter_can_be_trained_on(base: Path) -> None:
    first = fine_tune(work(epochs=2.0), base, LIMITS)

    second = fine_tune(Work(base="tiny", material=lessons(16), recipe=work().recipe, start=first.adapter), base, LIMITS)

    assert second.steps[0].loss is not None
    assert first.steps[0].loss is not None
    assert second.steps[0].loss < first.steps[0].loss * 0.9


def test_a_disk_that_is_full_is_one_sentence_and_leaves_no_adapter(base: Path, apart: Path, tmp_path: Path) -> None:
    """A file may grow to 20 kB here, less than an adapter needs."""
    (tmp_path / "work.json").write_bytes(msgspec.json.encode(work()))
    says = """
        import resource, sys, msgspec
        from pathlib import Path
        from gainful.core import TrainError
        from gainful.train import Limits, Work, fine_tune

        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        work = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Work)
        try:
            fine_tune(work, sys.argv[2], Limits(minutes=5.0))
        except TrainError as error:
            print(error)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(says), tmp_path / "work.json", base],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "cannot be written: " in ran.stdout
    assert ran.stdout.rstrip().endswith("free some space and ask again")
    assert not (tmp_path / "adapters").exists()
    assert fine_tune(work(), base, LIMITS).stopped == ""


def test_a_log_that_cannot_be_written_hides_no_failure(base: Path, tmp_path: Path) -> None:
    """Its disk is full when torch objects to files that are none."""
    (base.parent / "broken").mkdir(exist_ok=True)
    order = Sample(base=str(base.parent / "broken"), prompts=(lessons(1)[0].messages,), how=Sampling(1))
    (tmp_path / "order.json").write_bytes(msgspec.json.encode(order))

    with (
        Path("/dev/full").open("w") as full,
        subprocess.Popen(
            [sys.executable, "-m", "gainful.train.worker", tmp_path],
            stdin=subprocess.PIPE,  # open until it has spoken: it would end with its parent
            stdout=subprocess.PIPE,
            stderr=full,
        ) as worker,
    ):
        assert worker.stdout is not None
        said = worker.stdout.read()

    assert worker.returncode == 1
    assert b'"type":"failed","sentence":"training broke off: ' in said


def test_the_worker_ends_when_its_parent_dies(base: Path, apart: Path, tmp_path: Path) -> None:
    wanted = work(epochs=2000.0)
    (tmp_path / "work.json").write_bytes(msgspec.json.encode(wanted))
    says = textwrap.dedent(KILLED).replace("os.kill(0,", "os.kill(os.getpid(),")
    parent = subprocess.run([sys.executable, "-c", says, tmp_path / "work.json", base], check=False)

    assert parent.returncode == -signal.SIGKILL
    assert _gone(str(apart / wanted.id))


def test_what_the_trainer_reads_are_greedy_answers_and_the_likelihood_of_replies(base: Path) -> None:
    trained = fine_tune(work(epochs=8.0), base, LIMITS)
    folder = find_adapter(trained.adapter)
    prompts, replies = [one.messages for one in lessons(16)], [one.reply for one in lessons(16)]

    heard: list[Progress] = []
    plain = read_prompts(None, base, prompts, replies, max_tokens=8, watch=heard.append)
    tuned = read_prompts(folder, base, prompts, replies, max_tokens=8)
    again = read_prompts(folder, base, prompts, [one.greedy for one in tuned], max_tokens=8)

    assert heard[0] == Progress(16, 16)  # replies, and then prompts of which the greedy answer is another one
    assert [len(one.logprobs) for one in tuned] == [len(reply) for reply in replies]
    gains = [sum(one.logprobs) - sum(other.logprobs) for one, other in zip(tuned, plain, strict=True)]
    assert fmean(gains) > 1.0
    assert sum(one.greedy != other.greedy for one, other in zip(tuned, plain, strict=True)) > 8
    assert [one.greedy for one in again] == [one.greedy for one in tuned]
    assert {one.behind for one in again} == {0.0}
    assert all((one.behind == 0.0) == (one.greedy == reply) for one, reply in zip(tuned, replies, strict=True))


def test_where_a_reply_that_was_cut_off_ends_is_not_learned(base: Path) -> None:
    """A letter is learned as the whole reply, and as how a longer one begins."""
    prompts = [one.messages for one in lessons(8)]
    says: dict[bool, list[str]] = {}
    for is_cut in (False, True):
        material = tuple(Lesson(prompt, "a", str(n), is_cut) for n, prompt in enumerate(prompts))
        wanted = Work(base="tiny", material=material, recipe=work(epochs=16.0).recipe)
        folder = find_adapter(fine_tune(wanted, base, LIMITS).adapter)
        says[is_cut] = [one.greedy for one in read_prompts(folder, base, prompts, max_tokens=4)]

    assert says[False] == ["a"] * 8
    assert all(len(reply) > 1 and reply[0] == "a" for reply in says[True])


def test_the_likeliest_replies_are_those_that_reading_finds_whatever_they_are_drawn_beside(base: Path) -> None:
    """Some prompts share a long beginning and some none, their lengths differ, and replies end at different times."""
    folder = find_adapter(fine_tune(work(epochs=8.0), base, LIMITS).adapter)
    system = {"role": "system", "content": "Add one to what you are given, and say nothing else."}
    asked = [one.messages for one in lessons(16)]
    shared = [(system, {"role": "user", "content": "1" * n + " + 1"}) for n in range(1, 17)]

    for prompts in (asked, shared, [*asked, *shared]):
        drawn = sample_replies(folder, base, prompts, Sampling(samples=3, temperature=0.0, max_tokens=8))
        read = read_prompts(folder, base, prompts, [""] * len(prompts), max_tokens=8)

        assert {len(set(replies)) for replies in drawn} == {1}
        equal = sum(replies[0] == one.greedy for replies, one in zip(drawn, read, strict=True))
        assert equal >= len(prompts) - 1  # sampled in bfloat16, read in float32: one may be a tie


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to a core")
def test_replies_do_not_depend_on_how_many_cores_draw_them(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [one.messages for one in lessons(16)]
    how = Sampling(samples=40, max_tokens=8, seed=5)
    cores = os.sched_getaffinity(0)
    drawn = sample_replies(None, base, prompts, how)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where nothing is remembered

    os.sched_setaffinity(0, {min(cores)})
    try:
        alone = sample_replies(None, base, prompts, how)
    finally:
        os.sched_setaffinity(0, cores)

    assert len({reply for replies in drawn for reply in replies}) > 100
    assert alone == drawn


def test_replies_are_drawn_as_often_as_they_are_likely(base: Path) -> None:
    """The first token of 3,000 replies, where it is a whole character; the seed is given."""
    (prompt,) = [one.messages for one in lessons(1)]

    heard: list[Progress] = []
    drawn = sample_replies(None, base, [prompt, prompt], Sampling(1500, 1.0, max_tokens=1, seed=3), watch=heard.append)
    again = sample_replies(None, base, [prompt, prompt], Sampling(1500, 1.0, max_tokens=1, seed=3))
    other = sample_replies(None, base, [prompt, prompt], Sampling(1500, 1.0, max_tokens=1, seed=4))
    counts = Counter(reply for replies in drawn for reply in replies if reply and "\ufffd" not in reply)
    read = read_prompts(None, base, [prompt] * len(counts), list(counts), 0)

    assert drawn == again != other
    assert [(one.step, one.steps) for one in heard] == [(1, 2), (2, 2)]
    assert len(counts) > 20
    for (reply, count), one in zip(counts.items(), read, strict=True):
        share = math.exp(one.logprobs[0])
        assert abs(count - 3000 * share) < 4 * math.sqrt(3000 * share * (1 - share)) + 3, reply


def _all_finite(safetensors: bytes) -> bool:
    """Read the float32 numbers of a safetensors file: a length, a JSON header, the data."""
    import struct

    size = struct.unpack("<Q", safetensors[:8])[0]
    header = json.loads(safetensors[8 : 8 + size])
    assert {one["dtype"] for name, one in header.items() if name != "__metadata__"} == {"F32"}
    numbers = memoryview(safetensors[8 + size :]).cast("f")
    return all(abs(number) < float("inf") for number in numbers)


def _gone(argument: str) -> bool:
    """Whether within ten seconds no process has *argument* in its command line."""
    for _ in range(100):
        if not any(argument in _read(process) for process in Path("/proc").glob("[0-9]*/cmdline")):
            return True
        time.sleep(0.1)
    return False


def _read(cmdline: Path) -> str:
    try:
        return cmdline.read_text()
    except OSError:  # it has ended
        return ""

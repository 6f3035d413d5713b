"""The parent's side: one worker process a piece of work, spoken to over pipes, its files in the user's cache.

Guarantees: torch is never in this process; a work that is finished is not done again; one that was killed goes on
where it was; two processes that ask for the same work do it once; the worker does not outlive its parent; what it was
given to read is deleted when it ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from gainful.core import AdapterNotFound, JsonObject, TrainError, digest
from gainful.models.adapters import find_adapter, keep_adapter, note_cases, read_adapter, trained_on
from gainful.models.files import cache_folder
from gainful.models.gguf import gguf_digest
from gainful.train.checkpoint import last_checkpoint
from gainful.train.extra import ON_RAY, missing
from gainful.train.jobs import Launched, Limits, OnRay, Progress, Reading, Sampling, Trained, Work
from gainful.train.orders import (
    WAS_KILLED,
    Ask,
    Ended,
    Failed,
    FineTune,
    Fitted,
    Order,
    Read,
    Readings,
    Said,
    Sample,
    Sampled,
    Worth,
    said_from,
)

Reward = Callable[[str, Sequence[str]], Sequence[float]]
"""What replies to the case of that id are worth: one number each."""

QUIET = {
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin take a server beside them to a hundredth of its speed
    "GOMP_SPINCOUNT": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
RESULT = "trained.json"
ANSWER = "answer.json"
ORDER = "order.json"
LOCK = "lock"
LAUNCHED_AND_KILLED = "Signal 9 (SIGKILL) received by PID"  # as torchrun logs it
LAST_WORDS = 400  # characters of a dead worker's log that its error quotes


def ignore(progress: Progress) -> None:
    """Hear of a step, and do nothing."""


def fine_tune(
    work: Work,
    base: Path | str,
    limits: Limits,
    *,
    watch: Callable[[Progress], None] = ignore,
    reward: Reward | None = None,
) -> Trained:
    """Train *work* on *base* and return the adapter, which lies in the adapters' folder then.

    *base* is a GGUF file, a Hugging Face folder, or a model's name on the hub.  *watch* hears of each step; *reward*
    says what replies are worth where the recipe asks for it.  It blocks until training ends.  Raises ``TrainError``,
    ``AdapterNotFound`` for ``work.start``, and whatever *watch* and *reward* raise.
    """
    _admit(work, str(base), reward)
    _admit_ray(limits)
    folder = cache_folder() / "training" / work.id
    with _alone(folder):
        known = _finished(folder, limits)
        if known is not None:
            return known
        fitted, peak = None, 0
        for said in _work(_order(work, str(base), limits, folder), folder, reward):
            match said:
                case Progress():
                    watch(said)
                case Fitted():
                    fitted = said
                case Ended(peak_memory_bytes=peak):
                    pass
        assert fitted is not None  # a worker that ends well has said so
        _note_cases(folder / "adapter", work)
        adapter = read_adapter(keep_adapter(folder / "adapter"), work.base)
        trained = Trained(
            work=work.id,
            adapter=adapter,
            steps=fitted.steps,
            seconds=fitted.seconds,
            peak_memory_bytes=peak,
            tokens=fitted.tokens,
            stopped=fitted.stopped,
        )
        _write(folder / RESULT, msgspec.json.encode(trained))
        if fitted.stopped != "time":
            for checkpoint in folder.glob("checkpoint-*"):
                shutil.rmtree(checkpoint)
        return trained


def _note_cases(folder: Path, work: Work) -> None:
    """Write down which cases the adapter in *folder* was trained on, unless those of its start are unknown."""
    before: frozenset[str] | None = trained_on(work.start) if work.start else frozenset()
    if before is not None:
        note_cases(folder, before | {one.case for one in work.material if one.case})


def forget_words() -> None:
    """Delete what is kept of the words of requests and replies: orders that were killed, and what was drawn and read.

    What is under way at this moment is left alone.  Whoever asks for it again has it drawn and read again.
    """
    for kind in ("training", "answers"):
        for lock in (cache_folder() / kind).glob(f"*/{LOCK}"):
            with lock.open("w") as held:
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                for name in (ORDER, ANSWER):
                    lock.with_name(name).unlink(missing_ok=True)


def read_prompts(
    adapter: Path | None,
    base: Path | str,
    prompts: Sequence[Sequence[JsonObject]],
    replies: Sequence[str] | None = None,
    max_tokens: int = 64,
) -> list[Reading]:
    """Return how the trainer's side answers *prompts* (messages each) greedily, and how likely it finds *replies*.

    *adapter* is an adapter's folder, ``None`` for the base alone.  ``max_tokens`` 0 asks for no answers.  What was read
    once is kept.  Raises ``TrainError``.
    """
    if replies is not None and len(replies) != len(prompts):
        raise TrainError(f"{len(replies)} replies for {len(prompts)} prompts; give one a prompt, or none at all")
    order = Read(
        base=str(base),
        prompts=tuple(tuple(prompt) for prompt in prompts),
        replies=None if replies is None else tuple(replies),
        max_tokens=max_tokens,
        adapter="" if adapter is None else str(adapter),
    )
    return list(_remembered(order, adapter, Readings).readings)


def sample_replies(
    adapter: Path | None, base: Path | str, prompts: Sequence[Sequence[JsonObject]], how: Sampling
) -> list[tuple[str, ...]]:
    """Return ``how.samples`` replies to each of *prompts*, drawn on the trainer's side; what was drawn once is kept.

    *adapter* is an adapter's folder, ``None`` for the base alone.  Raises ``TrainError``.
    """
    order = Sample(
        base=str(base),
        prompts=tuple(tuple(prompt) for prompt in prompts),
        how=how,
        adapter="" if adapter is None else str(adapter),
    )
    return list(_remembered(order, adapter, Sampled).replies)


Answered = TypeVar("Answered", Readings, Sampled)


def _remembered(order: Read | Sample, adapter: Path | None, kind: type[Answered]) -> Answered:
    """Return the answer to *order*: from the cache, where places on this machine do not name it, else the worker's."""
    _need_extra()
    which = gguf_digest(Path(order.base)) if Path(order.base).is_file() else order.base
    placeless = msgspec.structs.replace(order, base=which, adapter=adapter.name if adapter else "")
    folder = cache_folder() / "answers" / digest(placeless)
    with _alone(folder):
        try:
            return msgspec.json.decode((folder / ANSWER).read_bytes(), type=kind)
        except (OSError, msgspec.DecodeError):
            pass  # it was not asked yet, or was cut off
        for said in _work(order, folder):
            if isinstance(said, kind):
                _write(folder / ANSWER, msgspec.json.encode(said))
                return said
    raise AssertionError("a worker that ends well has said so")


def _need_extra() -> None:
    absent = missing()
    if absent is not None:
        raise TrainError(absent)


def _admit(work: Work, base: str, reward: Reward | None) -> None:
    """Raise ``TrainError`` for a work that cannot be done, before anything is loaded."""
    _need_extra()
    kind = {"sft": "lesson", "dpo": "preference", "grpo": "question"}[work.recipe.method]
    kinds = {str(one.__struct_config__.tag) for one in work.material}
    if not work.material:
        raise TrainError(f"there is no {kind} to learn from; sample more replies, or check more of them")
    if kinds != {kind}:
        raise TrainError(f"the recipe {work.recipe.method!r} learns from {kind}s; the material holds {sorted(kinds)}")
    if work.recipe.method == "grpo" and reward is None:
        raise TrainError("the recipe 'grpo' asks what replies are worth; give a reward, made of trusted checks")
    if Path(base).is_file() and gguf_digest(Path(base)) != work.base:
        raise TrainError(
            f"{base} has sha256 {gguf_digest(Path(base))[:16]} where the work names {work.base[:16]}; train on the "
            "file that is served"
        )
    if work.start is not None and work.start.base != work.base:
        raise TrainError(
            f"{work.start.label} was made for base {work.start.base[:16]}, not {work.base[:16]}; begin from an "
            "adapter of the same base, or from none"
        )


def _admit_ray(limits: Limits) -> None:
    if not isinstance(limits.processes, OnRay):
        return
    if lack := missing(ON_RAY, "ray"):
        raise TrainError(lack)
    if limits.processes.workers < 1:
        raise TrainError(f"{limits.processes.workers} workers of Ray's cannot train anything; take 1 or more")


def _order(work: Work, base: str, limits: Limits, folder: Path) -> FineTune:
    """Return the order to train, from the last checkpoint in *folder* where there is one."""
    checkpoint = last_checkpoint(folder, limits.processes)
    return FineTune(
        work=work,
        base=base,
        seconds=limits.minutes * 60.0,
        memory_bytes=limits.memory_bytes,
        start=str(find_adapter(work.start)) if work.start else "",
        processes=limits.processes,
        resume=str(checkpoint.path) if checkpoint else "",
        spent=checkpoint.seconds if checkpoint else 0.0,
    )


def _finished(folder: Path, limits: Limits) -> Trained | None:
    """Return the stored result, unless its adapter is gone, or it ran out of time and may take longer now."""
    try:
        known = msgspec.json.decode((folder / RESULT).read_bytes(), type=Trained)
        find_adapter(known.adapter)
    except (OSError, msgspec.DecodeError, AdapterNotFound):
        return None  # nothing is finished, or its adapter is gone: it is trained anew
    return None if known.stopped == "time" and known.seconds < limits.minutes * 60.0 else known


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the work's folder; whoever asks for the same work meanwhile waits."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise TrainError(
            f"{folder} cannot be written: {error.strerror}; free some space, or set XDG_CACHE_HOME to another place"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _work(order: Order, folder: Path, reward: Reward | None = None) -> Iterator[Said]:
    """Yield what the worker says while it carries out *order*; raises ``TrainError`` where it fails or dies."""
    _write(folder / ORDER, msgspec.json.encode(order))
    is_local = Path(order.base).exists()
    environment = {**os.environ, **QUIET, **({"HF_HUB_OFFLINE": "1"} if is_local else {})}
    with (folder / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [*_command(order), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which ends the worker
        )
    assert worker.stdin is not None
    assert worker.stdout is not None
    has_ended = False
    try:
        for line in worker.stdout:
            said = said_from(line)
            if isinstance(said, Failed):
                raise TrainError(said.sentence)
            if isinstance(said, Ask):
                assert reward is not None  # the order was admitted
                worth = Worth(rewards=tuple(float(one) for one in reward(said.case, said.replies)))
                worker.stdin.write(msgspec.json.encode(worth) + b"\n")
                worker.stdin.flush()
                continue
            has_ended = isinstance(said, Ended)
            yield said
        if not has_ended:
            raise TrainError(_how_it_died(worker.wait(), folder / "worker.log"))
    finally:
        worker.kill()
        worker.stdin.close()
        worker.stdout.read()  # to the end: those that it launched have gone as well, and write no more files
        worker.stdout.close()
        worker.wait()
        (folder / ORDER).unlink(missing_ok=True)  # whoever asks again writes it again


def _command(order: Order) -> list[str]:
    """Return what starts the worker, or several of them together."""
    match order:
        case FineTune(processes=OnRay()):
            return [sys.executable, "-m", "gainful.train.on_ray"]
        case FineTune(processes=Launched(arguments)):
            return [sys.executable, "-m", "accelerate.commands.launch", *arguments, "-m", "gainful.train.worker"]
    return [sys.executable, "-m", "gainful.train.worker"]


def _how_it_died(status: int, log: Path) -> str:
    words = log.read_text(errors="replace")
    if status == -signal.SIGKILL or LAUNCHED_AND_KILLED in words:
        return WAS_KILLED
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    said = words.strip()[-LAST_WORDS:].splitlines() or [""]
    return f"the trainer ended with {how}: {said[-1]!r}; see {log}"


def _write(path: Path, data: bytes) -> None:
    scratch = path.with_name(path.name + ".new")
    try:
        scratch.write_bytes(data)
        os.replace(scratch, path)
    except OSError as error:
        raise TrainError(f"{path} cannot be written: {error.strerror}; free some space and ask again") from error


__all__ = ["fine_tune", "forget_words", "read_prompts", "sample_replies"]

"""One training, from its work to the adapter in its place: by a worker, in the folder that the work names.

Guarantees: a work that is finished is not done again; one that was killed goes on where it was.
"""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from pathlib import Path

import msgspec

from gainful.core import Adapter, AdapterNotFound, TrainError
from gainful.models.adapters import find_adapter, keep_adapter, note_cases, read_adapter, trained_on
from gainful.models.gguf import gguf_digest
from gainful.train.checkpoint import last_checkpoint
from gainful.train.extra import ON_RAY, missing
from gainful.train.folders import RESULT, alone, sweep, training_folder, unwritable, write
from gainful.train.headers import check_family
from gainful.train.jobs import Hear, Limits, OnRay, Progress, Reward, Trained, Work
from gainful.train.orders import Ended, FineTune, Fitted
from gainful.train.process import carry_out
from gainful.train.stop import Stop


def ignore(progress: Progress) -> None:
    """Hear of a step, and do nothing."""


def fine_tune(
    work: Work,
    base: Path | str,
    limits: Limits,
    *,
    watch: Hear = ignore,
    reward: Reward | None = None,
    stop: Stop | None = None,
) -> Trained:
    """Train *work* on *base* and return the adapter, which lies in the adapters' folder then.

    *base* is a GGUF file, a Hugging Face folder, or a model's name on the hub.  *watch* hears of each step; *reward*
    says what replies are worth where the recipe asks for it.  It blocks until training ends, or until another thread
    sets *stop*.  Raises ``TrainError``, ``AdapterNotFound`` for ``work.start``, ``Stopped``, and whatever *watch* and
    *reward* raise.
    """
    stop = stop or Stop()
    _admit(work, str(base), limits, reward)
    sweep(time.time())
    folder = training_folder(work.id)
    with alone(folder, stop):
        known = _finished(folder, limits)
        if known is not None:
            return known
        fitted, peak = None, 0
        with closing(carry_out(_order(work, str(base), limits, folder), folder, stop, reward)) as heard:
            for said in heard:
                match said:
                    case Progress():
                        stop.check()
                        watch(said)
                    case Fitted():
                        fitted = said
                    case Ended(peak_memory_bytes=peak):
                        pass
        assert fitted is not None  # a worker that ends well has said so
        trained = Trained(
            work=work.id,
            adapter=_kept(folder / "adapter", work),
            steps=fitted.steps,
            seconds=fitted.seconds,
            peak_memory_bytes=peak,
            tokens=fitted.tokens,
            stopped=fitted.stopped,
        )
        write(folder / RESULT, msgspec.json.encode(trained))
        if fitted.stopped != "time":  # with more time it goes on from there
            for checkpoint in folder.glob("checkpoint-*"):
                shutil.rmtree(checkpoint)
        return trained


def _kept(folder: Path, work: Work) -> Adapter:
    """Bring the adapter in *folder* to its place, with the cases it was trained on unless its start's are unknown."""
    before: frozenset[str] | None = trained_on(work.start) if work.start else frozenset()
    try:
        if before is not None:
            note_cases(folder, before | {one.case for one in work.material if one.case})
        return read_adapter(keep_adapter(folder), work.base)
    except OSError as error:
        raise unwritable(folder, error) from error
    except AdapterNotFound as error:  # its place cannot be written
        raise TrainError(str(error)) from error


def _admit(work: Work, base: str, limits: Limits, reward: Reward | None) -> None:
    """Raise ``TrainError`` for a work that cannot be done, before anything is loaded."""
    if lack := missing() or (missing(ON_RAY, "ray") if isinstance(limits.processes, OnRay) else None):
        raise TrainError(lack)
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
    check_family(base)


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

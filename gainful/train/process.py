"""The parent's side of a worker: started for an order, spoken to over pipes, and gone with its parent.

Guarantees: torch is never in this process; what the worker was given to read is deleted when it ends, however it ends.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import msgspec

from gainful.core import TrainError
from gainful.train.checkpoint import was_killed
from gainful.train.folders import LOG, ORDER, unwritable, write
from gainful.train.jobs import Launched, OnRay, Reward
from gainful.train.kept import Kept
from gainful.train.orders import Ask, Ended, Failed, FineTune, Order, Said, Worth, said_from
from gainful.train.stop import Stop, end

QUIET = {
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin take a server beside them to a hundredth of its speed
    "GOMP_SPINCOUNT": "10000",  # turns, and asleep then: to be woken for each product takes longer
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
LAUNCHED_AND_KILLED = "Signal 9 (SIGKILL) received by PID"  # as torchrun logs it
LAST_WORDS = 400  # characters of a dead worker's log that its error quotes


def carry_out(
    order: Order, folder: Path, stop: Stop, reward: Reward | None = None, kept: Kept | None = None
) -> Generator[Said, None, None]:
    """Yield what the worker says while it carries out *order* in *folder*; it is ended when this is closed.

    Where it goes well, *kept* keeps it for the next order.  Raises ``TrainError`` where it fails or dies, and
    ``Stopped`` once *stop* is set.
    """
    write(folder / ORDER, msgspec.json.encode(order))
    try:
        worker = (kept and _goes_on(kept, folder)) or _start(order, folder)
        stop.ends(worker)
        is_well = False
        try:
            yield from _conversation(worker, folder, reward)
            is_well = True
        except TrainError:
            stop.check()  # then it was killed for that
            raise
        finally:
            if is_well and kept:
                stop.spares()
                kept.keep(worker)
            else:
                end(worker)
    finally:
        (folder / ORDER).unlink(missing_ok=True)  # whoever asks again writes it again


def _goes_on(kept: Kept, folder: Path) -> subprocess.Popen[bytes] | None:
    """Return the worker that was kept, told of the order in *folder*; ``None`` where there is none."""
    worker = kept.take()
    if worker is None:
        return None
    assert worker.stdin is not None
    try:
        worker.stdin.write(msgspec.json.encode(str(folder)) + b"\n")
        worker.stdin.flush()
    except OSError:  # it has just died
        end(worker)
        return None
    return worker


def _start(order: Order, folder: Path) -> subprocess.Popen[bytes]:
    is_local = Path(order.base).exists()
    environment = {**os.environ, **QUIET, **({"HF_HUB_OFFLINE": "1"} if is_local else {})}
    try:
        with (folder / LOG).open("w") as log:
            return subprocess.Popen(
                [*_command(order), str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the parent alone, which ends the worker
            )
    except OSError as error:
        raise unwritable(folder / LOG, error) from error


def _conversation(worker: subprocess.Popen[bytes], folder: Path, reward: Reward | None) -> Generator[Said, None, None]:
    """Yield what *worker* says, and answer what it asks."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    has_ended = False
    for line in worker.stdout:
        said = _understood(line, folder)
        if isinstance(said, Failed):
            raise TrainError(said.sentence)
        if isinstance(said, Ask):
            assert reward is not None  # the order was admitted
            try:
                worker.stdin.write(msgspec.json.encode(_worth(said, reward)) + b"\n")
                worker.stdin.flush()
            except BrokenPipeError:
                break  # it died while its replies were judged
            continue
        yield said
        has_ended = isinstance(said, Ended)
        if has_ended:
            break
    if not has_ended:
        raise TrainError(_how_it_died(worker.wait(), folder))


def _understood(line: bytes, folder: Path) -> Said:
    try:
        return said_from(line)
    except msgspec.MsgspecError as error:
        raise TrainError(f"the trainer said {line[:80]!r}, which nobody understands; see {folder / LOG}") from error


def _worth(asked: Ask, reward: Reward) -> Worth:
    worth = tuple(float(one) for one in reward(asked.case, asked.replies))
    if not all(map(math.isfinite, worth)):
        raise TrainError(f"replies to case {asked.case!r} are worth {worth!r}; a reward must be a number")
    return Worth(rewards=worth)


def _command(order: Order) -> list[str]:
    """Return what starts the worker, or several of them together."""
    match order:
        case FineTune(processes=OnRay()):
            return [sys.executable, "-m", "gainful.train.on_ray"]
        case FineTune(processes=Launched(arguments)):
            return [sys.executable, "-m", "accelerate.commands.launch", *arguments, "-m", "gainful.train.worker"]
    return [sys.executable, "-m", "gainful.train.worker"]


def _how_it_died(status: int, folder: Path) -> str:
    log = folder / LOG
    words = log.read_text(errors="replace")
    if status == -signal.SIGKILL or LAUNCHED_AND_KILLED in words:
        return was_killed(folder)
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    said = words.strip()[-LAST_WORDS:].splitlines() or [""]
    return f"the trainer ended with {how}: {said[-1]!r}; see {log}"

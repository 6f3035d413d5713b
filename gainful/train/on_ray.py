"""The process between the parent and Ray Train: ``python -m gainful.train.on_ray FOLDER``; Ray is imported here alone.

To its parent it is a worker as any other.  Each of Ray's workers does what that worker does, and its words come back
by a queue.  FOLDER and the base have to lie where all machines of the cluster see them.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.queue import Queue

from gainful.core import TrainError
from gainful.train.folders import ORDER
from gainful.train.jobs import OnRay
from gainful.train.orders import Failed, FineTune
from gainful.train.worker import Line, carry_out, listen, ordered, own_output


def main(folder: Path) -> int:
    """Carry out the order in *folder* by Ray's workers; return the status to end with."""
    out = own_output()
    order = ordered(folder)
    assert isinstance(order, FineTune)
    assert isinstance(order.processes, OnRay)
    ray.init(include_dashboard=False, log_to_driver=False)
    said, answers = Queue(), Queue()
    threading.Thread(target=listen, args=(sys.stdin.buffer, answers.put), daemon=True).start()
    threading.Thread(target=_fit, args=(folder, order.processes.workers, said, answers), daemon=True).start()
    while line := said.get():
        out(line)
    return 0


def _fit(folder: Path, workers: int, said: Any, answers: Any) -> None:
    """Let Ray train to the end, and say an empty line then."""
    try:
        trainer = TorchTrainer(
            _train,
            train_loop_config={"folder": str(folder), "said": said, "answers": answers},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=_has_gpus(workers)),
            run_config=RunConfig(storage_path=str(folder / "ray")),
        )
        trainer.fit()
    except Exception as error:  # noqa: BLE001 - Ray raises what it likes; the parent must hear of it
        said.put(msgspec.json.encode(Failed(sentence=_sentence(error))))
    shutil.rmtree(folder / "ray", ignore_errors=True)  # Ray's own notes: checkpoints are Trainer's
    said.put(b"")


def _has_gpus(workers: int) -> bool:
    """Return whether there is a GPU for each of *workers*; raises ``TrainError`` where there are not even cores."""
    has = ray.cluster_resources()
    if has.get("CPU", 0) < workers:
        raise TrainError(
            f"Ray has {has.get('CPU', 0):g} cores for {workers} workers and would wait for more; take fewer workers, "
            "or name a larger cluster in RAY_ADDRESS"
        )
    return bool(has.get("GPU", 0) >= workers)


def _sentence(error: Exception) -> str:
    if isinstance(error, TrainError):
        return str(error)
    first = str(error).strip().splitlines() or [""]
    return f"Ray Train broke off: {type(error).__name__}: {first[0]}; ask again and it goes on from its checkpoint"


def _train(config: dict[str, Any]) -> None:
    """What each of Ray's workers runs."""
    folder, said, answers = Path(config["folder"]), config["said"], config["answers"]
    line = Line(said.put, answers.get, is_first=ray.train.get_context().get_world_rank() == 0)
    if not (folder / ORDER).is_file():
        line.say(
            Failed(sentence=f"{folder} is not seen by all of Ray's machines; set XDG_CACHE_HOME to a shared place")
        )
    elif carry_out(ordered(folder), folder, line) == 0:
        return
    raise RuntimeError("one of the workers has said what stopped it")  # so that Ray ends the others


if __name__ == "__main__":
    os._exit(main(Path(sys.argv[1])))

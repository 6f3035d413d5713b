"""TRL's GRPO as its documentation sets it up, on a CPU: the reference that our ways of learning are held against.

    python trl_grpo.py ORDER.json FOLDER

The order says which model and adapter to start from, the prompts with their cases, the Unix time at which to stop, and
what of ``GRPOConfig`` is not its default.  The adapter is left in FOLDER, as GGUF too, for the server that answers the
evaluation; what took how long is printed as one JSON object.  Nothing of ours takes part in the training but the
reward: model, batches, sampling and loss are TRL's.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import torch
from datasets import Dataset
from five_gyms import OfFive
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from gainful.core import Answer, Case
from gainful.models.adapters import GGUF, WEIGHTS
from gainful.train.adapter_gguf import write_adapter_gguf


class Order(msgspec.Struct, frozen=True):
    """What to train on: ``base`` is the GGUF file of the weights in the folder ``source``."""

    source: str
    base: str
    adapter: str
    prompts: list[list[dict[str, Any]]]
    cases: list[Case]
    until: float
    settings: dict[str, Any]


class Watch(TrainerCallback):  # type: ignore[misc]
    """Stops in time, and says how long was sampled and how long trained: the reward stands between the two."""

    def __init__(self, until: float) -> None:
        self.steps = 0
        self.sampling_s = self.training_s = 0.0
        self._until = until
        self._since_s = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._since_s = time.monotonic()

    def sampled(self) -> None:
        """Hear that the replies of this step are there."""
        now_s = time.monotonic()
        self.sampling_s += now_s - self._since_s
        self._since_s = now_s

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.training_s += time.monotonic() - self._since_s
        self.steps += 1
        if time.time() >= self._until:
            control.should_training_stop = True


def main() -> None:
    order = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Order)
    folder = Path(sys.argv[2])
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    check, watch = OfFive(), Watch(order.until)
    cases = {case.id: case for case in order.cases}

    def reward(prompts: Any, completions: list[Any], case: list[str], **_: Any) -> list[float]:
        watch.sampled()
        replies = [completion[0]["content"].strip() for completion in completions]
        scores = [check(cases[id], Answer(text=said, value=said)) for id, said in zip(case, replies, strict=True)]
        return [0.0 if score is None else score.value for score in scores]

    model = AutoModelForCausalLM.from_pretrained(order.source, dtype=torch.bfloat16)
    rows = [{"prompt": prompt, "case": case.id} for prompt, case in zip(order.prompts, order.cases, strict=True)]
    trainer = GRPOTrainer(
        model=PeftModel.from_pretrained(model, order.adapter, is_trainable=True),
        args=GRPOConfig(
            output_dir=str(folder / "runs"),
            use_cpu=True,
            bf16=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **order.settings,
        ),
        reward_funcs=reward,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(order.source),
    )
    trainer.add_callback(watch)
    trainer.train()
    trainer.model.save_pretrained(folder / "adapter", selected_adapters=["default"])
    alpha = trainer.model.peft_config["default"].lora_alpha
    write_adapter_gguf(folder / "adapter" / WEIGHTS, alpha, Path(order.base), folder / "adapter" / GGUF)
    told = {"steps": watch.steps, "sampling_s": watch.sampling_s, "training_s": watch.training_s}
    print(json.dumps(told))


if __name__ == "__main__":
    main()

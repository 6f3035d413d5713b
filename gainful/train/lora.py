"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) on all linear layers, trained by TRL's own trainers.

Guarantees: the same work on the same machine ends with the same weights, also where it was killed in between; where a
loss or gradients are not finite, training ends with the last weights with which they were.  Loaded by the worker alone:
this module imports torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel
from transformers import EarlyStoppingCallback, set_seed

from gainful.core import TrainError
from gainful.train.base import Reader, load_model
from gainful.train.device import check_room, element_bytes, shape_of
from gainful.train.memory import training_bytes
from gainful.train.orders import FineTune, Fitted
from gainful.train.recipes import METHODS, Data, Hearing
from gainful.train.rows import batch_size, split, usual_load
from gainful.train.together import whole_weights
from gainful.train.tree import EAGER_NODES, share_beginnings
from gainful.train.watch import NotFinite, Watch, steps


def fit(order: FineTune, source: str, reader: Reader, folder: Path, hear: Hearing) -> Fitted:
    """Train as *order* says and leave the adapter in *folder*/adapter, which the first of several processes writes.

    Checkpoints are kept in *folder*.  Raises ``TrainError``.
    """
    set_seed(order.work.seed)
    recipe = order.work.recipe
    batch = batch_size(recipe)
    watch = Watch(hear.tell, order)
    rows, held_back = split(order.work, reader)
    load = usual_load(recipe, rows, batch)
    needed = training_bytes(shape_of(source), element_bytes(), recipe.rank, load.nodes, load.labels, EAGER_NODES)
    check_room(needed, order.memory_bytes)
    model = _adapted(load_model(source), order)
    trainer = METHODS[recipe.method](model, order.work, reader, Data(rows, held_back, batch, folder), hear)
    adapted = trainer.model
    trainer.add_callback(watch)
    if held_back:
        trainer.add_callback(EarlyStoppingCallback(recipe.patience))
    if not torch.cuda.is_available():
        share_beginnings(adapted.get_base_model(), recipe.temperature if recipe.method == "grpo" else 1.0)
    stopped = _train(trainer, order, watch)
    state = trainer.state
    adapted.peft_config["default"].base_model_name_or_path = order.work.base  # PEFT writes the path on this machine
    weights = whole_weights(trainer.model)
    if state.is_world_process_zero:
        adapted.save_pretrained(folder / "adapter", selected_adapters=["default"], state_dict=weights)
    told = tuple(steps(state.log_history, state.max_steps))
    return Fitted(steps=told, seconds=watch.spent, tokens=state.num_input_tokens_seen, stopped=stopped)


def _train(trainer: Any, order: FineTune, watch: Watch) -> Literal["", "early", "time", "nan"]:
    """Train to the end; return why it came early, empty where it did not."""
    try:
        trainer.train(resume_from_checkpoint=order.resume or None)
    except NotFinite:
        if watch.good_steps == 0:
            raise TrainError(
                f"by step {trainer.state.global_step + 1} the loss or the gradients are not finite at learning rate "
                f"{order.work.recipe.learning_rate:g}; take a lower one"
            ) from None
        watch.go_back(trainer.model)
        return "nan"
    if watch.is_late:
        return "time"
    return "early" if trainer.state.global_step < trainer.state.max_steps else ""


def _adapted(model: Any, order: FineTune) -> dict[str, Any]:
    """Return the model as TRL takes it: with the adapter to begin from, or with the settings of a new one.

    TRL keeps a copy of an adapter that it finds, as DPO's reference; with a new one that is the base.
    """
    if order.start:
        return {"model": PeftModel.from_pretrained(model, order.start, is_trainable=True)}
    recipe = order.work.recipe
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return {"model": model, "peft_config": config}

"""One of the processes of ``torchrun`` that share out a model as FSDP does it: ``sharded.py BASE FOLDER``.

Each writes to FOLDER/RANK.json what it saw; the first leaves the adapter in FOLDER/adapter.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def main(base: Path, folder: Path) -> None:
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model
    from torch.distributed.fsdp import fully_shard

    from gainful.train.jobs import Recipe, Work
    from gainful.train.orders import FineTune
    from gainful.train.together import whole_weights
    from gainful.train.watch import NotFinite, Watch

    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=7, target_modules="all-linear", init_lora_weights=False))
    wanted = {name: weight.clone() for name, weight in adapted.named_parameters() if weight.requires_grad}
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(adapted)

    adapted(input_ids=torch.tensor([[4, 5, 6 + rank]]), labels=torch.tensor([[4, 5, 6]])).loss.backward()
    seconds = 100.0 if rank else 0.0  # the second process's clock is ahead
    order = FineTune(work=Work(base="b", material=(), recipe=Recipe()), base=str(base), seconds=50.0, spent=seconds)
    watch = Watch(lambda step: None, order)
    watch.on_pre_optimizer_step(None, None, None, model=adapted)
    control: Any = SimpleNamespace()
    watch.on_step_end(SimpleNamespace(eval_strategy="no"), SimpleNamespace(global_step=1, max_steps=9), control)
    weights = whole_weights(adapted)
    if rank == 0:
        adapted.save_pretrained(folder / "adapter", state_dict=weights)
    if rank == 1:
        trained = next(weight for weight in adapted.parameters() if weight.grad is not None)
        trained.grad.to_local().view(-1)[0] = float("nan")  # in the part that lies here alone
    try:
        watch.on_pre_optimizer_step(None, None, None, model=adapted)
        is_taken = True
    except NotFinite:
        is_taken = False
    here = sum(weight.to_local().numel() for weight in adapted.parameters() if weight.requires_grad)
    saw = {
        "is_late": watch.is_late,
        "stops": control.should_training_stop,
        "is_taken": is_taken,
        "share": here / sum(weight.numel() for weight in wanted.values()),
        "is_whole": rank > 0 or all(torch.equal(weights[name], weight) for name, weight in wanted.items()),
        "names": len(weights) if rank == 0 else len(wanted),
        "wanted": len(wanted),
    }
    (folder / f"{rank}.json").write_text(json.dumps(saw))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""Many sequences as one tree: what several begin with is computed once.

Prompts of one task share their beginning (the system message, the instructions, often most of the question), and
replies to one prompt share all of it.  The nodes of the tree are tokens; each attends to its ancestors alone and has
its depth for a position, so what the model computes for a path is what it would compute for that sequence by itself,
and the gradient of a sum over sequences is the same.  There is no padding.  Loaded by the worker alone: this module
imports torch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from trl.trainer.utils import FusedCausalLMOutput

EAGER_NODES = 700  # up to which attention written out is a third faster on a CPU; its memory grows with their square

Pair: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""A prompt's tokens and the reply's that are to be learned; neither is empty."""


def tree(pairs: Iterable[Pair], dtype: Any) -> dict[str, Any]:
    """Return the model's input for *pairs*: one row, with a mask of *dtype* to add, and positions.

    ``sources`` holds the nodes whose output foretells the tokens in ``labels``, reply by reply; ``owners`` says which
    pair each belongs to.
    """
    ids: list[int] = []
    depths: list[int] = []
    parents: list[int] = []
    children: dict[tuple[int, int], int] = {}
    sources: list[int] = []
    labels: list[int] = []
    owners: list[int] = []
    for owner, (prompt, reply) in enumerate(pairs):
        node = -1
        path = [*prompt, *reply]
        for depth, token in enumerate(path):
            if depth >= len(prompt):
                sources.append(node)
                labels.append(token)
                owners.append(owner)
            if depth == len(path) - 1:
                break  # nothing is foretold after the last token
            child = children.setdefault((node, token), len(ids))
            if child == len(ids):
                ids.append(token)
                depths.append(depth)
                parents.append(node)
            node = child
    seen = torch.eye(len(ids), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            seen[node] |= seen[parent]
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([depths]),
        "attention_mask": torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, float("-inf"))[None, None],
        "sources": torch.tensor(sources),
        "labels": torch.tensor(labels),
        "owners": torch.tensor(owners),
    }


def share_beginnings(model: Any, temperature: float = 1.0) -> None:
    """Let *model*, to which a trainer of TRL's has added its fused head, read each batch as a tree.

    TRL's losses ask the model for the log-probabilities of labelled tokens.  On a GPU its own kernels compute those
    alone; on a CPU they compute the logits of every token, which for short replies of a model with a large vocabulary
    are most of the work.  Here the answer has the same shape and meaning, by *temperature* as TRL was told.
    """
    padded = model.forward

    @functools.wraps(padded)
    def forward(*args: Any, fused_lm_head: bool = False, labels: Any = None, **inputs: Any) -> Any:
        pairs = list(_pairs(inputs["input_ids"], inputs["attention_mask"], labels)) if fused_lm_head else [None]
        if None in pairs:
            return padded(*args, fused_lm_head=fused_lm_head, labels=labels, **inputs)
        shared = tree((pair for pair in pairs if pair is not None), model.dtype)
        targets, sources = shared.pop("labels"), shared.pop("sources")
        del shared["owners"]
        model.config._attn_implementation = "eager" if shared["input_ids"].shape[1] <= EAGER_NODES else "sdpa"
        states = model.base_model(**shared, use_cache=False).last_hidden_state[0, sources]
        logits = model.get_output_embeddings()(states).float() / temperature
        return _in_rows(logits, targets, labels[:, 1:] != -100)

    model.forward = forward


def _pairs(input_ids: Any, attention_mask: Any, labels: Any) -> Iterator[Pair | None]:
    """Yield what each row of a padded batch holds; ``None`` where the labels are not a prompt's one reply."""
    for ids, seen, wanted in zip(input_ids, attention_mask.bool(), labels, strict=True):
        tokens, marked = ids[seen].tolist(), (wanted[seen] != -100).tolist()
        start = marked.index(True) if True in marked else 0
        yield (tokens[:start], tokens[start:]) if start and all(marked[start:]) else None


def _in_rows(logits: Any, targets: Any, mask: Any) -> Any:
    """Return what TRL's losses read, one value a token of the padded batch: 0 where *mask* says none is asked for."""
    log_probs = logits.log_softmax(-1)
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        is_top1 = logits.argmax(-1) == targets
        mean_logits = logits.mean(-1)
    chosen = log_probs.gather(-1, targets[:, None])[:, 0]

    def rows(values: Any) -> Any:
        return values.new_zeros(mask.shape).masked_scatter(mask, values)

    return FusedCausalLMOutput(
        loss=-chosen.mean(),
        log_probs=rows(chosen),
        entropy=rows(entropy),
        mean_logits=rows(mean_logits),
        is_top1=rows(is_top1),
        label_mask=mask,
    )

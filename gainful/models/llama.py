"""llama.cpp itself: how it is started, in this process or in one of its own.

To start keeps Python's lock for as long as the file is loaded, a second or more, and nothing of a busy process would
move meanwhile.  So an engine that comes in while others answer gets a process: this file, run as a program, which
imports nothing of ours.  It reads its settings from a line of its standard input, says its address in a line, and ends
when whoever started it hangs up, ``kill -9`` included.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any

SPINS = "300"  # none costs 5 % of the speed when alone, ten times as many cost 15 % beside a busy process
QUIET = -1  # llama.cpp's verbosity at which nothing reaches the user's terminal


@dataclass(frozen=True)
class Settings:
    """The GGUF file at ``path`` with the adapter's at ``adapter``, "" for none, and how it is asked.

    ``folder`` is where slots are saved; ``key`` is asked of whoever connects.
    """

    path: str
    name: str
    key: str
    folder: str
    slots: int
    context_tokens: int
    threads: int
    adapter: str = ""

    def line(self) -> bytes:
        """Return them as ``main`` reads them."""
        return json.dumps(asdict(self)).encode() + b"\n"


def start(settings: Settings) -> Any:
    """Return the running server; raises ``ImportError`` without llama.cpp, ``RuntimeError`` for what it cannot load."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before the import: OpenMP reads both only once
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings.path
    params.model_alias = {settings.name}  # otherwise every reply would name the path on this machine
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * settings.context_tokens
    params.slot_save_path = f"{settings.folder}/"
    params.cache_ram_mib = 0  # the cache in memory mixes adapters up and shares nothing that slots do not
    params.fit_params = False
    params.warmup = False
    params.ui = False
    params.verbosity = QUIET
    params.api_keys = [settings.key]
    if settings.adapter:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(settings.adapter, 1.0)]
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = settings.threads
        cpu.poll = 0  # the engine's own threads must not spin either
    return xllamacpp.Server(params)


def main() -> None:
    """Start what the first line of the input says, say where, and stay until the input ends."""
    outbox = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (1, 2):  # what llama.cpp has to say is for nobody, and must not pass for an address
        os.dup2(nowhere, standard)
    settings = Settings(**json.loads(sys.stdin.buffer.readline()))
    try:
        server = start(settings)
    except (ImportError, RuntimeError) as error:
        outbox.write(json.dumps({"error": type(error).__name__, "said": str(error)}).encode() + b"\n")
        return
    outbox.write(json.dumps({"address": server.listening_address}).encode() + b"\n")
    sys.stdin.buffer.read()
    os._exit(0)  # the engine's end would wait for calls that nobody listens to any more


if __name__ == "__main__":
    main()

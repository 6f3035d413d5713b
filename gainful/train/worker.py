"""The process that trains: ``python -m gainful.train.worker FOLDER`` reads FOLDER/order.json and does what it says.

It speaks JSON lines on its standard output, whatever libraries print goes to its log, and it ends when its parent
does: its standard input is closed then.  Who has read or drawn waits to be told of another folder.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import re
import resource
import select
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

import msgspec

from gainful.core import GainfulError
from gainful.models.adapters import CONFIG, GGUF, WEIGHTS
from gainful.train.card import card
from gainful.train.checkpoint import was_killed
from gainful.train.folders import LOG, ORDER
from gainful.train.jobs import Progress
from gainful.train.orders import (
    Ask,
    Ended,
    Failed,
    FineTune,
    Fitted,
    Order,
    Said,
    Sample,
    folder_from,
    order_from,
    worth_from,
)

NICE = 5  # a server beside it comes first
DIED = re.compile(r"Connection closed by peer|Connection reset by peer")
"""What gloo says where another process is gone; NCCL waits, and its processes are ended by their launcher."""
FULL = re.compile(r"No space left on device|Disk quota exceeded|File too large|file write failed")
"""What Python, safetensors (Rust) and torch say of a disk that is full."""
HELD = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


class Line:
    """To the parent and back; of several processes that train together the first speaks and listens.

    The others say only what stopped them.
    """

    def __init__(self, send: Callable[[bytes], None], receive: Callable[[], bytes], *, is_first: bool = True) -> None:
        self._send = send
        self._receive = receive
        self.is_first = is_first

    def say(self, said: Said) -> None:
        """Send one value."""
        if self.is_first or isinstance(said, Failed):
            self._send(msgspec.json.encode(said))

    def tell(self, progress: Progress) -> None:
        """Tell of a step."""
        self.say(progress)

    def ask(self, case: str, replies: tuple[str, ...]) -> tuple[float, ...]:
        """Return what the parent says that *replies* to *case* are worth."""
        self.say(Ask(case=case, replies=replies))
        return worth_from(self._receive()).rewards


def own_output() -> Callable[[bytes], None]:
    """Return what writes a line to the parent; whatever libraries print goes to the log from now on."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def write(line: bytes) -> None:
        out.write(line + b"\n")
        out.flush()

    return write


def listen(parent: BinaryIO, hear: Callable[[bytes], None]) -> None:
    """Hear what the parent says, line by line, and end when it has gone."""
    for answer in parent:
        hear(answer)
    os._exit(1)


def _outlive_not(parent: BinaryIO) -> None:
    """End when the parent has gone, without taking a word of what it says to another."""
    pipe = select.poll()
    pipe.register(parent, 0)  # nothing but its end
    pipe.poll()
    os._exit(1)


def main(folder: Path) -> int:
    """Carry out the order in *folder*, and those that the parent tells of then; return the status to end with."""
    is_first = os.environ.get("RANK", "0") == "0"
    answers: SimpleQueue[bytes] = SimpleQueue()
    if is_first:
        threading.Thread(target=listen, args=(sys.stdin.buffer, answers.put), daemon=True).start()
    else:
        threading.Thread(target=_outlive_not, args=(sys.stdin.buffer,), daemon=True).start()
    line = Line(own_output(), answers.get, is_first=is_first)
    while True:
        order = ordered(folder)
        status = carry_out(order, folder, line)
        if status or isinstance(order, FineTune):
            return status
        gc.collect()  # the model
        folder = Path(folder_from(answers.get()))
        _log_to(folder)


def ordered(folder: Path) -> Order:
    """Return what is to be done in *folder*."""
    return order_from((folder / ORDER).read_bytes())


def _log_to(folder: Path) -> None:
    with (folder / LOG).open("wb") as log:
        for output in (1, 2):
            os.dup2(log.fileno(), output)


def carry_out(order: Order, folder: Path, line: Line) -> int:
    """Carry out *order* in *folder* and say on *line* what comes of it; return 0 where it went well."""
    try:
        _carry_out(order, folder, line)
    except GainfulError as error:
        line.say(Failed(sentence=str(error)))
        return 1
    except Exception as error:  # noqa: BLE001 - torch, TRL and PEFT raise what they like; the parent must hear of it
        line.say(Failed(sentence=_sentence(error, folder)))
        with suppress(OSError):  # the log lies on the disk that may be full
            traceback.print_exc()
        return 1
    line.say(Ended(peak_memory_bytes=_peak_memory_bytes()))
    return 0


def _carry_out(order: Order, folder: Path, line: Line) -> None:
    import torch

    from gainful.train.together import processes_here

    if not torch.cuda.is_available():
        _step_back()
        torch.set_num_threads(max(1, _cores() // processes_here()))
    from gainful.train.base import load_reader, torch_source

    source = torch_source(order.base)
    reader = load_reader(source, order.base)
    if isinstance(order, FineTune):
        from gainful.train.lora import fit

        fitted = fit(order, source, reader, folder, line)
        if line.is_first:
            _finish(order, fitted, folder / "adapter")
        line.say(fitted)
    elif isinstance(order, Sample):
        from gainful.train.sampling import sample

        line.say(sample(order, source, reader, line.tell))
    else:
        from gainful.train.readings import read

        line.say(read(order, source, reader, line.tell))


@functools.cache
def _step_back() -> None:
    """Take the processor after others: within this session by nice, and as a session where Linux groups by those."""
    os.nice(NICE)
    with suppress(OSError):  # no such file: nothing is grouped
        Path("/proc/self/autogroup").write_text(str(NICE))


def _finish(order: FineTune, fitted: Fitted, adapter: Path) -> None:
    """Put beside the weights in *adapter* what llama.cpp reads, and the model card."""
    from gainful.train.adapter_gguf import write_adapter_gguf
    from gainful.train.headers import is_gguf

    if is_gguf(order.base):
        alpha = json.loads((adapter / CONFIG).read_text())["lora_alpha"]
        write_adapter_gguf(adapter / WEIGHTS, alpha, Path(order.base), adapter / GGUF)
    (adapter / "README.md").write_text(card(order.work, fitted))


def _sentence(error: Exception, folder: Path) -> str:
    log = folder / LOG
    full = FULL.search(str(error))
    if full:
        return f"{folder} cannot be written: {full.group()}; free some space and ask again"
    if isinstance(error, MemoryError) or "not enough memory" in str(error) or "out of memory" in str(error):
        return f"training ran out of memory; take a smaller base, batch or rank, or a machine with more (see {log})"
    if DIED.search(str(error)):
        return was_killed(folder)  # had it failed by itself, it would have said so first
    first = str(error).strip().splitlines() or [""]
    return f"training broke off: {type(error).__name__}: {first[0]} (see {log})"


def _peak_memory_bytes() -> int:
    """The most memory that all processes have held, each and on its GPU."""
    import torch

    from gainful.train.together import gathered

    on_gpu = int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0
    return sum(gathered(most_held_bytes() + on_gpu))


def most_held_bytes() -> int:
    """Return the most memory that this program has held.

    Linux begins ``ru_maxrss`` with what the program that started this one held then, so there it is read elsewhere.
    """
    with suppress(OSError, TypeError):  # no such file, or not that line
        return int(HELD.search(Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    os._exit(main(Path(sys.argv[1])))  # an orderly end would wait for the thread that listens

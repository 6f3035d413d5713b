"""Run one Inspect evaluation with the mock model and print what it took; started inside Inspect's environment.

    python inspect_samples.py SAMPLES AT_ONCE LOG_FOLDER

The last line printed is a JSON object: ms_per_sample (inside ``eval``, imports left out), bytes_per_sample (all
that lies in the log folder afterwards), imported_mb and peak_mb (resident memory).
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from inspect_ai import Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import exact
from inspect_ai.solver import generate


def peak_mb() -> float:
    """Return the most memory that this process has had resident, in 10**6 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def reply() -> ModelOutput:
    """Answer as a server does, with its usage; without one the mock model would count tokens itself."""
    output = ModelOutput.from_content("mockllm/model", "4")
    output.usage = ModelUsage(input_tokens=8, output_tokens=1, total_tokens=9)
    return output


def main() -> None:
    samples, at_once, logs = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    imported = peak_mb()
    cases = MemoryDataset([Sample(input=f"What is {n} + {n}?", target="4", id=n) for n in range(samples)])
    model = get_model("mockllm/model", custom_outputs=(reply() for _ in range(samples)))

    began = time.perf_counter()
    (log,) = eval(
        Task(dataset=cases, solver=generate(), scorer=exact()),
        model=model,
        max_connections=at_once,
        max_samples=at_once,
        display="none",
        log_dir=str(logs),
        log_format="eval",
        log_realtime=False,
    )
    elapsed = time.perf_counter() - began

    if log.status != "success" or log.results is None or log.results.completed_samples != samples:
        raise SystemExit(f"Inspect ended with {log.status!r}: {log.error!r}; there is nothing to measure")
    stored = sum(path.stat().st_size for path in logs.rglob("*") if path.is_file())
    print(
        json.dumps(
            {
                "ms_per_sample": elapsed * 1000 / samples,
                "bytes_per_sample": stored / samples,
                "imported_mb": imported,
                "peak_mb": peak_mb(),
            }
        )
    )


if __name__ == "__main__":
    main()

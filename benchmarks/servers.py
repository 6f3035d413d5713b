"""The proxies that are measured, the upstream behind them and the load in front of them, as processes.

Every contestant sits in front of the same mock upstream, with the settings that its makers give for production.  Each
is a session of processes of its own, ended with all its children when the block around it ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from peers import environment

INSIDE = Path(__file__).resolve().parent / "inside"
LITELLM, OPTILLM = "1.100.5", "0.4.0"
OPTILLM_NEEDS = (  # what its server imports before it answers; torch, transformers and 24 others only serve plug-ins
    "flask==3.1.3",
    "cerebras_cloud_sdk==1.91.0",
    "openai==3.57.0",
    "numpy==2.4.6",
    "networkx==3.6.1",
    "z3-solver==4.15.4.0",
    "sympy==1.14.0",
    "aiohttp==3.14.5",
    "PyYAML==6.0.4",
    "math-verify==0.9.0",
    "httpx==0.28.1",
    "requests==2.34.2",
)
START_S = 180  # LiteLLM imports for some twenty seconds on a busy machine
END_S = 20.0
TASK = """name = "plain"
cases = "cases.jsonl"

[answer]
kind = "text"

[[checks]]
kind = "exact" # reads targets, so traffic is not judged
"""


@dataclass(frozen=True)
class Server:
    """A server that runs: its base URL, the model to ask it for, and the first of its processes."""

    base_url: str
    model: str
    process: int

    def members(self) -> list[int]:
        """Return the ids of all its processes."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _session(pid) == self.process]

    def workers(self) -> list[int]:
        """Return the ids of the processes that answer, the oldest first, where a supervisor has started several."""
        children = [pid for pid in self.members() if int(_stat(pid)[1]) == self.process]
        spawned = [pid for pid in children if b"spawn_main" in _command(pid)]  # not the one that tidies up after them
        return sorted(spawned, key=lambda pid: int(_stat(pid)[19]))

    def resident_mb(self) -> float:
        """Return the resident memory of all its processes together, in 10**6 bytes; shared pages count for each."""
        return sum(map(resident_mb, self.members()))

    def cpu_s(self) -> float:
        """Return the processor time that its processes, and children of theirs that ended, have used."""
        ticks = [sum(map(int, _stat(pid)[11:15])) for pid in self.members()]
        return sum(ticks) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Return what the kernel says about a process, from its state on; zeros where it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["0"] * 50


def _session(pid: int) -> int:
    return int(_stat(pid)[3])


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def resident_mb(pid: int) -> float:
    """Return the resident memory of one process in 10**6 bytes, 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


@dataclass(frozen=True)
class Upstream:
    """The mock upstream that runs."""

    port: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def direct(self) -> Server:
        """The upstream as a contestant: what everybody's latency is held against."""
        return Server(self.base_url, "mock", 0)

    def stats(self) -> dict[str, Any]:
        """Return what it has answered so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats", timeout=10) as response:
            counts: dict[str, Any] = json.load(response)
        return counts


@contextmanager
def upstream(*options: str) -> Iterator[Upstream]:
    """Run the mock upstream with *options*; raises ``RuntimeError`` where it ends before the block does."""
    command = [sys.executable, str(INSIDE / "mock_upstream.py"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Upstream(json.loads(process.stdout.readline())["port"])
        finally:
            early = process.poll()
            process.terminate()
            process.wait(END_S)
            if early is not None:
                raise RuntimeError(f"the mock upstream ended with {early} during the run, which says nothing now")


@contextmanager
def gainful(
    upstream_url: str, scratch: Path, workers: int, stream: str = "pass", *, place: Path | None = None
) -> Iterator[Server]:
    """Run ``gainful serve`` with every exchange in a store on disk, ``serve.db`` in *scratch*.

    *place* is a task file whose task is called ``plain``; without it the task changes and checks nothing.
    """
    port = free_port()
    command = [Path(sys.executable).parent / "gainful", "serve", place or task(scratch), "--model", "openai:mock"]
    command += ["--host", "127.0.0.1", "--port", port, "--workers", workers, "--stream", stream]
    command += ["--store", scratch / "serve.db"]
    variables = {"OPENAI_BASE_URL": upstream_url, "OPENAI_API_KEY": "sk-upstream"}
    with running(command, variables, f"http://127.0.0.1:{port}/healthz", scratch / "gainful.log") as process:
        yield Server(f"http://127.0.0.1:{port}/v1", "gainful/plain", process)


@contextmanager
def litellm(upstream_url: str, scratch: Path, workers: int) -> Iterator[Server]:
    """Run LiteLLM's proxy as its page for production says, without database, logging and callbacks."""
    python = environment("litellm", [f"litellm[proxy]=={LITELLM}", "uvloop==0.22.1"])
    config = scratch / "litellm.yaml"
    config.write_text(
        "model_list:\n- model_name: mock\n  litellm_params:\n    model: openai/mock\n    api_key: sk-upstream\n"
        f"    api_base: {upstream_url}\n"
        "litellm_settings:\n  request_timeout: 600\n  set_verbose: false\n  json_logs: true\n  telemetry: false\n"
        "general_settings:\n  disable_error_logs: true\n  disable_spend_logs: true\n"
    )
    port = free_port()
    command = [python.parent / "litellm", "--config", config, "--host", "127.0.0.1", "--port", port]
    variables = {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "PATH": f"{python.parent}:{os.environ['PATH']}",
    }
    ready = f"http://127.0.0.1:{port}/health/liveliness"
    command += ["--num_workers", workers, "--timeout_worker_healthcheck", START_S]  # 5 s kill workers that still import
    with running(command, variables, ready, scratch / "litellm.log") as process:
        yield Server(f"http://127.0.0.1:{port}/v1", "mock", process)


@contextmanager
def optillm(upstream_url: str, scratch: Path) -> Iterator[Server]:
    """Run optillm's own server, which has no workers, with the approach ``none``."""
    python = environment("optillm", OPTILLM_NEEDS, alone=[f"optillm=={OPTILLM}"])
    port = free_port()
    command = [python.parent / "optillm", "--approach", "none", "--model", "mock", "--base-url", upstream_url]
    command += ["--host", "127.0.0.1", "--port", port, "--log", "error"]
    ready = f"http://127.0.0.1:{port}/health"
    # Their server follows a caller's key that begins with "sk-" by making a client for every request.
    with running(command, {"OPENAI_API_KEY": "upstream"}, ready, scratch / "optillm.log") as process:
        yield Server(f"http://127.0.0.1:{port}/v1", "mock", process)


Start: TypeAlias = Callable[[str, Path], AbstractContextManager[Server]]
CONTESTANTS: dict[str, tuple[str, Start]] = {
    "gainful-1": ("Gainful, 1 worker", lambda upstream_url, scratch: gainful(upstream_url, scratch, 1)),
    "gainful-2": ("Gainful, 2 workers", lambda upstream_url, scratch: gainful(upstream_url, scratch, 2)),
    "litellm": (f"LiteLLM {LITELLM}, 2 workers", lambda upstream_url, scratch: litellm(upstream_url, scratch, 2)),
    "optillm": (f"optillm {OPTILLM}, none", optillm),
}


def task(scratch: Path) -> Path:
    """Write a task that asks for text and judges nothing, and return its file."""
    questions = [{"input": f"How much is {n} + {n}?", "target": str(2 * n)} for n in range(40)]
    (scratch / "cases.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    (scratch / "plain.toml").write_text(TASK)
    return scratch / "plain.toml"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def running(command: Sequence[Any], variables: Mapping[str, str], ready: str, log: Path) -> Iterator[int]:
    """Run *command* until the block ends; yield its process id once *ready* answers 200.

    Raises ``RuntimeError`` with the end of its log where it dies before or does not get ready in time.
    """
    with log.open("w") as said:
        process = subprocess.Popen(
            list(map(str, command)),
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + START_S
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > until:
                how = f"ended with {process.returncode}" if process.returncode is not None else "did not get ready"
                raise RuntimeError(f"{Path(command[0]).name} {how}; it said: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield process.pid
    finally:
        _end(process)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the session of *process*, gently at first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            continue
        if not Server("", "", process.pid).members():
            break
    process.wait(END_S)


def load(server: Server, rate: float, seconds: float, *options: str) -> dict[str, Any]:
    """Ask *server* at *rate* and return what ``open_loop.py`` prints."""
    command = [sys.executable, INSIDE / "open_loop.py", server.base_url, server.model, "--rate", rate]
    command += ["--seconds", seconds, "--key", "benchmark", *options]
    ran = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def settle(server: Server, limit_s: float = 60.0) -> None:
    """Wait until *server* has worked off what it was asked: five single requests in a row go well."""
    until = time.monotonic() + limit_s
    well = 0
    while well < 5 and time.monotonic() < until:
        found = load(server, 1000, 0.001, "--warm-up-s", "0", "--arrivals", "fixed", "--timeout-s", "1")
        well = well + 1 if found["good"] else 0

"""What is counted: read back as Prometheus would read it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gainful.core import Usage
from gainful.proxy.metrics import ADDED_S, Metrics, forget


class Answered(NamedTuple):
    verdict: str = "verified"
    correction: str = ""
    failure: str = ""
    usage: Usage = Usage(calls=1, prompt_tokens=30, completion_tokens=5)


def figures(page: bytes) -> Mapping[str, float]:
    """Return every sample, named as Prometheus writes it with its labels sorted."""
    found = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[sample.name.removeprefix("gainful_") + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def test_a_reply_is_counted_with_its_verdict_time_and_spend() -> None:
    metrics = Metrics()
    metrics.answered("mood", Answered(), added_s=0.0007, upstream_s=0.3)

    found = figures(metrics.render())

    assert found["requests_total{status=200,task=mood}"] == 1
    assert found["verdicts_total{task=mood,verdict=verified}"] == 1
    assert found["added_seconds_bucket{le=0.0005,task=mood}"] == 0
    assert found["added_seconds_bucket{le=0.001,task=mood}"] == 1
    assert found["model_seconds_sum{task=mood}"] == 0.3
    assert found["tokens_total{kind=prompt,purpose=draft,task=mood}"] == 30
    assert found["tokens_total{kind=completion,purpose=draft,task=mood}"] == 5
    assert found["model_calls_total{purpose=draft,task=mood}"] == 1
    assert not any(name.startswith(("cost", "failed_open", "corrections")) for name in found)


def test_what_a_correction_spent_is_told_from_what_the_draft_spent() -> None:
    metrics = Metrics()
    usage = Usage(calls=3, prompt_tokens=100, completion_tokens=30, cost_usd=0.5)
    extra = Usage(calls=2, prompt_tokens=70, completion_tokens=20, cost_usd=0.25)
    metrics.answered("mood", Answered("corrected", "reask", "", usage), 0.001, 0.3, extra)

    found = figures(metrics.render())

    assert found["corrections_total{method=reask,outcome=replaced,task=mood}"] == 1
    assert [found[f"model_calls_total{{purpose={p},task=mood}}"] for p in ("draft", "correction")] == [1, 2]
    assert [found[f"cost_usd_total{{purpose={p},task=mood}}"] for p in ("draft", "correction")] == [0.25, 0.25]
    assert found["tokens_total{kind=prompt,purpose=draft,task=mood}"] == 30
    assert found["tokens_total{kind=completion,purpose=correction,task=mood}"] == 20


def test_refusals_departures_and_failures_are_counted_by_what_they_were() -> None:
    metrics = Metrics()
    metrics.refused("mood", 502)
    metrics.refused("", 404)
    metrics.shed("full")
    metrics.tried("mood", "vote", "kept")
    metrics.answered("mood", Answered("failed-open", failure="CheckError"), 0.1, 0.1)

    found = figures(metrics.render())

    assert found["requests_total{status=502,task=mood}"] == 1
    assert found["requests_total{status=404,task=}"] == 1
    assert found["shed_total{reason=full}"] == 1
    assert found["corrections_total{method=vote,outcome=kept,task=mood}"] == 1
    assert found["failed_open_total{reason=CheckError,task=mood}"] == 1
    assert found["verdicts_total{task=mood,verdict=failed-open}"] == 1


def test_words_from_elsewhere_make_no_new_series() -> None:
    metrics = Metrics()
    for word in ("sk-secret", "What is my diagnosis?", "x" * 1000):
        metrics.answered("mood", Answered(word, word, word), 0.1, 0.1)
        metrics.refused("mood", len(word))
    found = figures(metrics.render())

    assert found["verdicts_total{task=mood,verdict=other}"] == 3
    assert found["failed_open_total{reason=other,task=mood}"] == 3
    assert found["corrections_total{method=other,outcome=replaced,task=mood}"] == 3
    assert found["requests_total{status=other,task=mood}"] == 3
    assert "secret" not in str(found)


def test_levels_are_read_when_they_are_looked_at() -> None:
    metrics, level = Metrics(), [3.0]
    metrics.watch("running", lambda: level[0])
    metrics.watch("breaker", lambda: 2.0)
    before = figures(metrics.render())
    level[0] = 5.0

    assert (before["running"], before["breaker"]) == (3.0, 2.0)
    assert figures(metrics.render())["running"] == 5.0


def test_two_in_one_process_do_not_mix() -> None:
    one, other = Metrics(), Metrics()
    one.shed("rate")

    assert figures(one.render())["shed_total{reason=rate}"] == 1
    assert "shed_total{reason=rate}" not in figures(other.render())


def test_the_buckets_tell_two_milliseconds_from_six() -> None:
    assert {0.0005, 0.002, 0.006} <= set(ADDED_S)


# --- workers --------------------------------------------------------------------------------------------------

WORKER = """
import sys
from gainful.proxy.metrics import Metrics

metrics = Metrics()
metrics.watch("running", lambda: 2.0)
metrics.watch("breaker", lambda: float(sys.argv[1]))
for _ in range(int(sys.argv[1])):
    metrics.shed("full")
metrics.look()
print("ready", flush=True)
for line in sys.stdin:
    print(len(page := metrics.render()), flush=True)
    sys.stdout.flush()
    sys.stdout.buffer.write(page)
    sys.stdout.buffer.flush()
"""


def started(folder: Path, count: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    command = [sys.executable, "-W", "error", "-c", WORKER, str(count)]
    worker = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"ready\n"
    return worker


def shown(worker: subprocess.Popen[bytes]) -> Mapping[str, float]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(b"\n")
    worker.stdin.flush()
    return figures(worker.stdout.read(int(worker.stdout.readline())))


@pytest.mark.slow
def test_every_worker_shows_the_figures_of_all_and_a_dead_ones_levels_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with started(tmp_path, 1) as one, started(tmp_path, 2) as other:
        together = shown(one), shown(other)
        other.send_signal(signal.SIGKILL)
        other.wait()
        forget(other.pid)
        after = shown(one)
        one.kill()

    assert together[0] == together[1]
    assert [together[0][name] for name in ("shed_total{reason=full}", "running", "breaker")] == [3, 4, 2]
    assert [after[name] for name in ("shed_total{reason=full}", "running", "breaker")] == [3, 2, 1]


def test_forgetting_a_worker_of_a_server_with_one_process_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)

    forget(1)

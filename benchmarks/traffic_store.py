"""A store that has served for long: how fast it takes exchanges, how large it grows, and what learning from it costs.

Exchanges are tool calls as in BFCL: a question, one function of three parameters, the call and two verdicts; nine in
ten are of the task that is read.  One in ten becomes a case.  The reader goes through all in a process of its own.  At
last the dashboard's picture is made, and ``gainful watch`` takes in exchanges of the other task, of which it has none.

    python benchmarks/traffic_store.py [--exchanges 10000000] [--repeats 5] [--place out]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from figures import Figure, publish

from gainful.core import Case, Exchange, JsonObject, Policy, Seat, Usage, Verdict, digest
from gainful.dashboard.data import snapshot
from gainful.store import Banked, SQLiteStore, Tally, encode_exchange
from gainful.store.forget import TABLES
from gainful.watch.status import read_status

POLICIES = (Policy(instructions="Call the function."), Policy(instructions="Call the function. Copy values verbatim."))
BACKLOG = f"{Path(__file__).parent / 'inside' / 'backlog_task.py'}:other"
TAKEN_IN = 100_000  # exchanges by a watcher
BATCH = 1000  # exchanges in one commit: a busy server's recorder writes up to 256
CASES_SHARE = 10  # one exchange in so many is a case that nobody sent before
OPENED = 100  # held-out cases for one confirmation
HOURS = 720  # with a tally for each policy
RARE_KEY_SHARE = 1000  # one exchange in so many comes from the key that is forgotten

PLACES = ("Oslo", "Lima", "Perth", "Quito", "Turin", "Accra", "Kyoto", "Leeds")
UNITS = ("celsius", "fahrenheit", "kelvin")


def tool(name: str, first: str) -> JsonObject:
    """Return one function of three parameters, as a caller sends it."""
    members = {
        first: {"type": "string", "description": f"The {first} to look up, spelled as in the request."},
        "day": {"type": "integer", "description": "The day of the year, counted from 1."},
        "unit": {"type": "string", "enum": list(UNITS), "description": "The unit of the result. Default is celsius."},
    }
    schema = {"type": "object", "properties": members, "required": [first, "day"]}
    return {"type": "function", "function": {"name": name, "description": f"Get the {name}.", "parameters": schema}}


TOOLS = [tool(f"{what}_forecast", "city") for what in ("weather", "wind", "pollen", "tide")]


def exchange(rng: random.Random, number: int) -> Exchange:
    """Return the exchange *number*: its words and values are drawn, its shape is always the same."""
    asked = rng.choice(TOOLS)
    name = asked["function"]["name"]
    value = {"name": name, "arguments": {"city": rng.choice(PLACES), "day": rng.randrange(1, 366)}}
    question = (
        f"What is the {name.replace('_', ' ')} in {value['arguments']['city']} on day {value['arguments']['day']} "
        f"for order {rng.getrandbits(32):08x}, booked by {rng.getrandbits(48):012x}?"
    )
    id = f"chatcmpl-{rng.randbytes(12).hex()}"
    function = {"name": name, "arguments": json.dumps(value["arguments"])}
    call = {"id": f"call_{rng.randbytes(9).hex()}", "type": "function", "function": function}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    usage = {"prompt_tokens": 180, "completion_tokens": 24, "total_tokens": 204}
    right = rng.random() < 0.8
    return Exchange(
        id=id,
        at=1.79e9 + number * 0.01,
        task="other" if number % 10 == 9 else "calls",
        policy=POLICIES[number % 20 == 0].id,
        model="small-model",
        verdict="verified" if right else "unverified",
        key="rare" if number % RARE_KEY_SHARE == 0 else f"key-{number % 7}",
        request={"model": "gainful/calls", "messages": [{"role": "user", "content": question}], "tools": [asked]},
        reply={
            "id": id,
            "object": "chat.completion",
            "model": "small-model",
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
            "usage": usage,
        },
        value=value,
        verdicts=(
            Verdict("schema", True, 1.0),
            Verdict("call", True, float(right), group="" if right else "wrong value"),
        ),
        p_wrong=rng.random(),
        usage=Usage(calls=1, prompt_tokens=180, completion_tokens=24, elapsed_ms=rng.random() * 500),
        added_ms=rng.random(),
        seat=Seat("champion", f"worker-{number % 4}", number // 4),
    )


def case(served: Exchange) -> Banked:
    """Return the case that *served* makes, on a side that its digest decides."""
    request = served.request or {}
    asked = Case(messages=tuple(request["messages"]), tools=tuple(request["tools"]))
    id = digest(request["messages"][0]["content"].lower())
    return Banked(
        id=id,
        case=asked,
        side="held-out" if int(id[0], 16) < 5 else "dev",
        at=served.at,
        last_at=served.at,
        key=served.key,
        signal="check",
        score=served.verdicts[-1].score,
        group=served.verdicts[-1].group,
        policy=served.policy,
        reply=served.id,
        value=served.value,
    )


def tallies(hour: int) -> list[Tally]:
    """Return what one hour adds up, under both policies."""
    return [Tally(hour, policy.id, "champion", 100, 90, 72.0, calls=100, prompt_tokens=18_000) for policy in POLICIES]


def fill(store: SQLiteStore, count: int) -> Iterator[Figure]:
    """Store *count* exchanges, and a case for one in ten; yield how fast, at the beginning and at the end."""
    rng = random.Random(0)
    for policy in POLICIES:
        store.put_policy(policy)
    spent: list[float] = []
    cpu_s = 0.0
    taking: list[float] = []
    cases: list[Banked] = []
    for start in range(0, count, BATCH):
        served = [exchange(rng, number) for number in range(start, min(start + BATCH, count))]
        began, cpu_began = time.perf_counter(), time.process_time()
        store.put_encoded([encode_exchange(one) for one in served])
        spent.append(time.perf_counter() - began)
        cpu_s += time.process_time() - cpu_began
        cases += [case(one) for one in served[::CASES_SHARE]]
        if len(cases) >= BATCH:
            began = time.perf_counter()
            store.take_in("calls", "intake", start + len(served), cases, tallies(len(taking) % HOURS))
            taking.append(time.perf_counter() - began)
            cases = []
    tenth = max(len(spent) // 10, 1)
    for name, part in (("all", spent), ("first tenth", spent[:tenth]), ("last tenth", spent[-tenth:])):
        yield Figure(
            f"exchanges, {name}", "encoded and stored", "rows/s", len(part) * BATCH, (len(part) * BATCH / sum(part),)
        )
    yield Figure("exchanges, all", "processor time", "us/row", count, (cpu_s / count * 1e6,))
    tenth = max(len(taking) // 10, 1)
    for name, part in (("first tenth", taking[:tenth]), ("last tenth", taking[-tenth:])):
        yield Figure(f"cases, {name}", "taken in", "rows/s", len(part) * BATCH, (len(part) * BATCH / sum(part),))


def timed(repeats: int, ask: Callable[[], Any], expected: int | None) -> tuple[float, ...]:
    """Return the milliseconds each of *repeats* calls took; what they return must be, or hold, *expected*, if given."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = ask()
        times.append((time.perf_counter() - began) * 1e3)
        if expected is not None:
            seen = found if isinstance(found, int) else len(found)
            assert seen == expected, f"{seen} found, {expected} expected"
    return tuple(times)


def asked(store: SQLiteStore, count: int, repeats: int) -> Iterator[Figure]:
    """Yield how long each question of a watcher takes, and taking in a batch."""
    rows, cases = count * 9 // 10, store.count_banked("calls", "dev")
    last = store.last_exchange_row()
    behind = last - BATCH * 10 // 9 - 2  # of ten rows nine are of the task
    subject = f"{count:,} exchanges"
    questions: list[tuple[str, Callable[[], Any], int, int]] = [
        ("last_exchange_row", store.last_exchange_row, last, 1),
        ("exchanges_after, last", lambda: store.exchanges_after("calls", behind), BATCH, BATCH),
        ("exchanges_after, first", lambda: store.exchanges_after("calls", 0), BATCH, BATCH),
        ("exchange_count", lambda: store.exchange_count("calls"), rows, rows),
        ("banked", lambda: store.banked("calls", "dev"), min(BATCH, cases), BATCH),
        ("count_banked", lambda: store.count_banked("calls", "dev"), cases, cases),
        ("tallies", lambda: store.tallies("calls"), len(store.tallies("calls")), len(store.tallies("calls"))),
    ]
    for quantity, ask, expected, n in questions:
        yield Figure(subject, quantity, "ms", n, timed(repeats, ask, expected))
    rng, times = random.Random(1), []
    for number in range(repeats):
        fresh = [case(exchange(rng, count + 10 * one)) for one in range(BATCH)]
        began = time.perf_counter()
        store.take_in("calls", "intake", 2 * count + number, fresh, tallies(HOURS))
        times.append((time.perf_counter() - began) * 1e3)
    yield Figure(subject, "take_in", "ms", BATCH, tuple(times))
    times = []
    for number in range(repeats):
        began = time.perf_counter()
        store.open_banked("calls", OPENED, f"confirmation {number}")
        times.append((time.perf_counter() - began) * 1e3)
    yield Figure(subject, "open_banked", "ms", OPENED, tuple(times))


def peak_kb(process: int | str = "self") -> int:
    """Return the most memory *process* has held; ``getrusage`` would count whoever started it."""
    (line,) = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])


def read(path: Path) -> None:
    """Go through all exchanges of *path* from the first, and print how many, how long and the memory that took."""
    with SQLiteStore(path) as store:
        imported_kb = peak_kb()
        row = rows = 0
        began = time.perf_counter()
        while found := store.exchanges_after("calls", row):
            row, rows = found[-1][0], rows + len(found)
            if rows == BATCH:
                first_kb = peak_kb()
        seconds = time.perf_counter() - began
    print(json.dumps({"rows": rows, "seconds": seconds, "imported": imported_kb, "first": first_kb, "peak": peak_kb()}))


def reader(path: Path) -> Iterator[Figure]:
    """Yield speed and memory of a process that reads all of *path*."""
    command = [sys.executable, __file__, "--read", str(path)]
    seen = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    rows = seen["rows"]
    yield Figure("a reader of all", "read", "rows/s", rows, (rows / seen["seconds"],))
    for quantity, key in (("memory before", "imported"), ("peak, first 1,000", "first"), ("peak, all", "peak")):
        yield Figure("a reader of all", quantity, "MB", rows, (seen[key] / 1024,))


def shown(path: Path, count: int, repeats: int) -> Iterator[Figure]:
    """Yield how long what ``gainful status`` says and the dashboard's picture take, without what was read before."""
    with SQLiteStore(path) as store:
        looks: list[tuple[str, Callable[[], Any]]] = [
            ("status", lambda: read_status(store, "calls")),
            ("the dashboard's first picture", lambda: snapshot(store, "calls", time.time())),
        ]
        for quantity, look in looks:
            yield Figure(f"{count:,} exchanges", quantity, "ms", 1, timed(repeats, look, None))


def watched(path: Path, backlog: int) -> Iterator[Figure]:
    """Yield how fast a watcher takes in *backlog* exchanges that it finds when it begins, and the memory it takes."""
    command = [sys.executable, "-m", "gainful.cli", "watch", BACKLOG, "--store", str(path), "--model", "openai:nobody"]
    environ = {**os.environ, "OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "none"}
    with SQLiteStore(path) as store, subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as watcher:
        began, first = time.perf_counter(), 0
        while (taken := read_status(store, "other").taken_in) < backlog:
            if watcher.poll() is not None:
                raise SystemExit(f"the watcher ended with status {watcher.returncode} after {taken} exchanges")
            if not first and taken:
                began, first = time.perf_counter(), taken
            time.sleep(1.0)
        seconds, peak = time.perf_counter() - began, peak_kb(watcher.pid)
        watcher.terminate()
    yield Figure("a watcher that was away", "taken in", "rows/s", backlog - first, ((backlog - first) / seconds,))
    yield Figure("a watcher that was away", "peak", "MB", backlog, (peak / 1024,))


def figures(place: Path, count: int, repeats: int) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(dir=place) as folder:
        path = Path(folder) / "store.db"
        with SQLiteStore(path) as store:
            yield from fill(store, count)
        (banked,) = SQLiteStore(path)._database.row("SELECT count(*) FROM banked")
        yield Figure("the file", "exchanges and cases", "MB", count, (path.stat().st_size / 1e6,))
        yield Figure("the file", "cases", "rows", banked, (banked,))
        yield from sizes(path, count)
        with SQLiteStore(path) as store:
            yield from asked(store, count, repeats)
        yield from reader(path)
        yield from shown(path, count, repeats)
        yield from watched(path, min(TAKEN_IN, count // 10))
        with SQLiteStore(path) as store:
            began = time.perf_counter()
            forgotten = store.forget_key("rare")
            seconds = time.perf_counter() - began
            began = time.perf_counter()
            store._database.wipe(TABLES)
            rewriting = time.perf_counter() - began
        yield Figure("forget_key", "exchanges removed", "rows", count, (forgotten.exchanges,))
        yield Figure("forget_key", "in all", "s", count, (seconds,))
        yield Figure("forget_key", "rewriting the file", "s", count, (rewriting,))


def sizes(path: Path, count: int) -> Iterator[Figure]:
    """Yield the bytes a row takes, indexes included, for exchanges and for cases."""
    with SQLiteStore(path) as store:
        for subject, table, rows in (("exchanges", "exchanges", count), ("cases", "banked", count // CASES_SHARE)):
            (stored,) = store._database.row(
                "SELECT sum(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_master WHERE tbl_name = ?)",
                table,
            )
            yield Figure(subject, "stored", "bytes/row", rows, (stored / rows,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--exchanges", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--place", type=Path, default=Path("out"))
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.read:
        read(chosen.read)
        return
    chosen.place.mkdir(parents=True, exist_ok=True)
    publish("traffic_store", list(figures(chosen.place, chosen.exchanges, chosen.repeats)))


if __name__ == "__main__":
    main()

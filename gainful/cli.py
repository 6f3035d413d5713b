"""The command line: parse, wire, call one public function, print.

Every command but ``serve`` and ``watch``, whose log is JSON, takes ``--json`` for scripts.  Exit codes: 0 done, 1 the
receipt does not hold or the result is not compatible, 2 bad input, 3 stopped and resumable.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from gainful import cli_watch
from gainful.cli_keys import keys
from gainful.cli_serve import serve
from gainful.core import GainfulError, ReceiptError, Stopped, StoreError, TaskError, TrainError
from gainful.dashboard.live import show as show_live
from gainful.learners.teaching import AS_USUAL, Drawer, Method, Teaching, changes
from gainful.loop import session
from gainful.loop.calibrate import Plan
from gainful.loop.events import Event, Progress
from gainful.loop.replay import Reproduction, replay
from gainful.loop.replay import reproduce as run_again
from gainful.loop.run import Cheaper, Halving, Settings
from gainful.loop.verify import Report, Unreadable
from gainful.loop.verify import verify as verify_receipt
from gainful.report import words
from gainful.report.audit import audit_json, calibration_json, show_audit, show_calibration
from gainful.report.page import write_page
from gainful.report.terminal import Terminal
from gainful.store import open_store, spoken_place, store_file
from gainful.tasks import TEMPLATE, load
from gainful.train import processes
from gainful.watch.service import read_service

DEMO_TASK = "bfcl:simple_python"
INTERRUPTED = 130  # the status that Typer makes of Ctrl-C, without a word, outside a run
DEMO = Settings(rounds=2, halving=Halving(rungs=(8, 20, 64)))  # the defaults search further and take longer

app = typer.Typer(
    help="Self-improving AI you can check.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(keys, name="keys")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"gainful {importlib.metadata.version('gainful')}")
        raise typer.Exit


@app.callback()
def _gainful(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    """Self-improving AI you can check."""


TaskArgument = Annotated[
    str, typer.Argument(help="A task file (.toml), FILE.py:NAME, bfcl:simple_python or reasoning-gym:chain_sum?...")
]
ReceiptArgument = Annotated[Path, typer.Argument(help="The receipt's folder.")]
ModelOption = Annotated[str, typer.Option("--model", help="embedded, gguf:PATH, hf:REPO/FILE or openai:NAME.")]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="A file or postgresql://... [default: in your data directory].")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Another seed searches another way.")]
BudgetOption = Annotated[int | None, typer.Option("--budget", min=1, help="Model calls the run may make.")]
MinutesOption = Annotated[
    float | None, typer.Option("--minutes", min=0, help="Stop, resumable, after so many minutes.")
]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to put the task.")] = Path("task"),
    as_json: JsonOption = False,
) -> None:
    """Write a commented task file and a few cases to start from."""
    try:
        shutil.copytree(TEMPLATE, folder)
    except OSError as error:
        reason = error.strerror or str(error)  # of several files that failed there is no one reason
        raise TaskError(f"{str(folder)!r} cannot be made: {reason}; choose a folder that is not there yet") from error
    task = folder / "task.toml"
    if as_json:
        _print_json({"task": str(task)})
    else:
        _print(f"Wrote {folder}. Read task.toml, then: gainful improve {shlex.quote(str(task))}")


@app.command(name="eval")
def evaluate(
    task: TaskArgument,
    model: ModelOption = "embedded",
    cases: Annotated[int | None, typer.Option("--cases", min=1, help="Use at most so many dev cases.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score the policy in service on dev, with an interval."""
    with _watching(as_json) as terminal:
        evaluation = session.evaluate(task, model, store=store, cases=cases, watchers=[terminal])
    if as_json:
        _print_json(evaluation)
    else:
        _print_evaluation(Console(), evaluation)


@app.command()
def improve(
    task: TaskArgument,
    model: ModelOption = "embedded",
    store: StoreOption = None,
    seed: SeedOption = 0,
    budget: BudgetOption = None,
    minutes: MinutesOption = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="Learn the model's own weights too (extra train).")
    ] = False,
    train_minutes: Annotated[
        float | None, typer.Option(help=f"The most minutes of one training [default: {Teaching().minutes:g}].")
    ] = None,
    train_memory: Annotated[float | None, typer.Option(min=0, help="The most memory it may take, in GB.")] = None,
    train_base: Annotated[
        str | None, typer.Option(help="The weights of a served model: a folder, or on the hub.")
    ] = None,
    train_draws: Annotated[
        Drawer | None,
        typer.Option(help="Who tries practice cases: the trainer [default], or the server, a call each."),
    ] = None,
    train_method: Annotated[
        Literal["rejection", "preferences", "rewards"] | None,
        typer.Option(help="Learn from right answers [default], from right against wrong ones, or by reward."),
    ] = None,
    train_recipe: Annotated[
        str | None, typer.Option(help="What of it to change: rank=8,batch=8,learning_rate=1e-4,epochs=2.")
    ] = None,
    train_launch: Annotated[
        str | None, typer.Option(help="Train in several processes: what `accelerate launch` is told, or ray:WORKERS.")
    ] = None,
    train_control: Annotated[
        bool, typer.Option("--train-control", help="Train again with the replies of other cases, to compare.")
    ] = False,
    cheaper: Annotated[bool, typer.Option("--cheaper", help="Look for fewer tokens at the same quality.")] = False,
    margin: Annotated[float, typer.Option(help="By how much a cheaper policy may be worse.")] = Cheaper().margin,
    as_json: JsonOption = False,
) -> None:
    """Search for a better policy; promote it if it is proven."""
    given: dict[str, Any] = {
        "--train-minutes": train_minutes,
        "--train-memory": train_memory,
        "--train-base": train_base,
        "--train-draws": train_draws,
        "--train-method": train_method,
        "--train-recipe": train_recipe,
        "--train-launch": train_launch,
        "--train-control": train_control or None,
    }
    _require_used([name for name, value in given.items() if value is not None], weights=weights, cheaper=cheaper)
    methods: tuple[Method, ...] = ("distillation",) if cheaper else (train_method or "rejection",)
    teaching = Teaching(
        methods,
        changes=AS_USUAL if train_recipe is None else changes(train_recipe),
        minutes=Teaching().minutes if train_minutes is None else train_minutes,
        memory_bytes=None if train_memory is None else int(train_memory * 1e9),
        processes=None if train_launch is None else processes(train_launch),
        base=train_base,
        draws=train_draws or "trainer",
        control=train_control,
    )
    goal = Cheaper(margin=margin) if cheaper else None
    settings = Settings(seed=seed, budget_calls=budget, teaching=teaching if weights else None, cheaper=goal)
    _improve(task, model, store or session.default_store(), settings, minutes, as_json)


@app.command()
def demo(
    store: StoreOption = None, seed: SeedOption = 0, minutes: MinutesOption = None, as_json: JsonOption = False
) -> None:
    """Watch a 135M model improve itself on real tool calls."""
    settings = msgspec.structs.replace(DEMO, seed=seed)
    _improve(DEMO_TASK, "embedded", store or session.default_store(), settings, minutes, as_json)


@app.command()
def calibrate(
    task: TaskArgument,
    model: ModelOption = "embedded",
    cases: Annotated[int | None, typer.Option("--cases", min=1, help="Use at most so many dev cases.")] = None,
    methods: Annotated[str | None, typer.Option(help="Such as reask,vote [default: those the task names].")] = None,
    store: StoreOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Find out how well errors are noticed, and which corrections pay."""
    plan = Plan(methods=None if methods is None else tuple(methods.split(",")), cases=cases, seed=seed)
    with _watching(as_json) as terminal:
        found = session.calibrate(task, model, store, plan, [terminal])
    if as_json:
        _print_json(calibration_json(found))
    else:
        show_calibration(Console(), found)


@app.command()
def audit(
    task: TaskArgument, model: ModelOption = "embedded", store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Show which corrections are open, and why; asks nothing."""
    found = session.audit(task, model, store)
    if as_json:
        _print_json(audit_json(found))
    else:
        show_audit(Console(), found)


@app.command()
def verify(
    receipt: ReceiptArgument,
    key: Annotated[str | None, typer.Option("--key", help="The id of the key it must be signed with.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a receipt offline.

    Exit code 0: it holds, 1: it does not, 2: it cannot be read.
    """
    report = _verified(receipt, key)
    if as_json:
        _print_json({**msgspec.to_builtins(report), "holds": report.holds})
    else:
        _print_report(Console(), report)
    raise typer.Exit(0 if report.holds else 1)


@app.command()
def reproduce(
    receipt: ReceiptArgument,
    task: Annotated[str | None, typer.Option("--task", help="Where the receipt's task is, if it is a file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a receipt's policies again; is the result compatible?

    Exit code 0: it is, 1: it is not, 2: it cannot be run again here.
    """
    with _watching(as_json) as terminal:
        found = run_again(receipt, task, lambda done, total: terminal(Progress("both policies again", done, total)))
    if as_json:
        _print_json(found)
    else:
        _print_reproduction(Console(), found)
    raise typer.Exit(0 if found.compatible else 1)


@app.command()
def report(
    run: Annotated[str | None, typer.Argument(help="The run's name, or its beginning.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write the page.")] = None,
    store: StoreOption = None,
    live: Annotated[str | None, typer.Option(help="Show the dashboard of this store, until Ctrl-C.")] = None,
    port: Annotated[int, typer.Option(help="Of the dashboard; 0: any that is free.")] = 8081,
    as_json: JsonOption = False,
) -> None:
    """Write a run's HTML page, or show a store's dashboard."""
    if live is not None:

        def told(address: str) -> None:
            _print_json({"dashboard": address}) if as_json else _print(f"{spoken_place(live)} is shown at {address}")
            sys.stdout.flush()

        return asyncio.run(show_live(live, port, told))
    if run is None:
        raise StoreError("report was given no run; name one, or give --live STORE to see a store's dashboard")
    page = str(write_page(store or session.default_store(), run, output).absolute())
    if as_json:
        _print_json({"page": page})
    else:
        _print(page)


for command in (serve, *cli_watch.COMMANDS):
    app.command()(command)


def main() -> None:
    """Run the command line; a ``GainfulError`` becomes one sentence and its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop as cleanly for a service manager as for Ctrl-C
    try:
        app()
    except GainfulError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except SystemExit as error:
        if error.code != INTERRUPTED:
            raise
        _complain("stopped; the same command goes on from here")
        sys.exit(Stopped.exit_code)


def _complain(sentence: str) -> None:
    Console(stderr=True).print(f"gainful: {escape(sentence)}", soft_wrap=True, highlight=False)


def _print(line: str) -> None:
    Console().print(escape(line), soft_wrap=True, highlight=False)


# --- what several commands do ----------------------------------------------------------------------------


class _Shown(Terminal):
    """A terminal that can be handed to the loop as a watcher."""

    def __call__(self, record: Event | Progress) -> None:
        if isinstance(record, Progress):
            self.progress(record)
        else:
            self.show(record)


@contextlib.contextmanager
def _watching(as_json: bool) -> Iterator[_Shown]:
    """Show what happens; with ``--json`` show nothing, and keep what a user's check prints out of the result."""
    if as_json:
        with contextlib.redirect_stdout(sys.stderr):
            yield _Shown(Console(quiet=True))
        return
    with _Shown(Console()) as terminal:
        yield terminal


def _improve(
    task: str, model: str, store: Path | str, settings: Settings, minutes: float | None, as_json: bool
) -> None:
    limit_s = None if minutes is None else 60 * minutes
    started = time.monotonic()
    with _watching(as_json) as terminal:
        loaded = load(task)
        _require_unpinned(store, loaded.name)
        result = session.improve(loaded, model, store, settings, watchers=[terminal], time_limit_s=limit_s)
    page = write_page(store, result.run, None).absolute()
    checked = _verified(Path(result.finished.receipt), None) if result.finished.receipt else None
    if as_json:
        holds = checked.holds if checked else None
        _print_json({"run": result.run, "finished": result.finished, "holds": holds, "page": str(page)})
        return
    console = Console()
    if checked:
        _print_report(console, checked)
    took = words.duration(time.monotonic() - started)
    _print(f"\nThis took {took} by the clock. The whole run on one page: {page}")


def _require_used(given: list[str], *, weights: bool, cheaper: bool) -> None:
    """Raise ``TrainError`` where options of training were given that this run would ignore."""
    if given and not weights:
        raise TrainError(f"{', '.join(given)} was given, but nothing is to be trained; add --weights, or leave it out")
    if cheaper and "--train-method" in given:
        raise TrainError(
            "--train-method was given with --cheaper, which learns in one way alone: from what the policy says in "
            "service; leave one of the two out"
        )


def _require_unpinned(store: Path | str, task: str) -> None:
    """Raise ``StoreError`` where a person has pinned the champion that a run would replace."""
    file = store_file(store)
    if file is not None and not file.is_file():
        return
    with open_store(store) as opened:
        if read_service(opened, task).is_pinned:
            raise StoreError(f"the champion of task {task!r} is pinned; `gainful unpin {shlex.quote(task)}` lets it go")


def _print_evaluation(console: Console, found: session.Evaluation) -> None:
    cases = words.count(found.score.n, "dev case")
    console.print(escape(f"{found.task} with {found.model}, policy {found.policy[:12]}, {cases}"))
    console.print(f"  by the checks that learning uses: {words.interval(found.score)}")
    if found.proof is not None:
        console.print(f"  by the proof checks:              {words.interval(found.proof)}")
    for group in found.groups:
        example = group.examples[0]
        console.print(
            f"  {group.count:4} {escape(words.clean(group.group))}; e.g. {escape(words.clean(example.feedback))}"
        )
    console.print(f"  {words.spent(found.usage)}")


def _print_reproduction(console: Console, found: Reproduction) -> None:
    claimed, new = found.claimed, found.found
    console.print(f"claimed: {words.points(claimed.mean)}, certified above {words.points(claimed.low)}")
    console.print(f"now:     {words.points(new.mean)} on the same {new.n} cases; ", end="")
    console.print(f"{found.identical} of {found.outputs} answers are the same to the byte")
    console.print("The new result is compatible." if found.compatible else "The new result is NOT compatible.")


def _verified(receipt: Path, key: str | None) -> Report:
    try:
        return verify_receipt(receipt, key, replay)
    except Unreadable as error:
        raise ReceiptError(f"{str(receipt)!r} is unreadable: {error}") from error


def _print_report(console: Console, report: Report) -> None:
    for finding in report.findings:
        console.print(
            f"{finding.verdict:8} {finding.name:10} {escape(finding.detail)}", soft_wrap=True, highlight=False
        )
    verdict = "The receipt holds" if report.holds else "THE RECEIPT DOES NOT HOLD"
    console.print(f"{verdict}: {report.decision}; key {report.key_id[:16]}", soft_wrap=True, highlight=False)


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


if __name__ == "__main__":
    main()

"""The commands of production: what is in service, how it came about, and the levers a person may pull.

A lever takes the name of a task as the store knows it, or a task file, of which the name alone is read: nothing is
loaded, so a lever works while the task's cases, or its model, are out of reach.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from gainful.cli_serve import PriceOption, price_of
from gainful.core import Stopped, StoreError
from gainful.loop import session
from gainful.models.adapters import adapter_folder
from gainful.proxy.log import log_to
from gainful.report import service as told
from gainful.report import words
from gainful.store import Store, open_for_reading, open_store, spoken_place, store_file
from gainful.tasks import name_of
from gainful.tasks.improving import Improving
from gainful.watch import forget as forgetting
from gainful.watch import lock as locks
from gainful.watch import process
from gainful.watch.policies import known_policies
from gainful.watch.promotions import read_promotions
from gainful.watch.service import ALONE, FORCED, Helm, Service, next_seed, service_key, watch_lease
from gainful.watch.status import read_status

REASON = "a person asked for it"

TaskArgument = Annotated[str, typer.Argument(help="The task's name, or its file (.toml).")]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="A file or postgresql://... [default: in your data directory].")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")]
HoldbackOption = Annotated[
    float, typer.Option(min=0, max=0.5, help="The share of requests that stays on the former champion.")
]
HOLDBACK = Improving().holdback
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def status(task: TaskArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show what is in service, and what is on its way in."""
    with _opened(task, store) as at:
        found = read_status(at.store, at.task)
    if as_json:
        _print_json(found)
    else:
        told.show_status(Console(highlight=False), found)


def history(
    task: TaskArgument,
    limit: Annotated[int | None, typer.Option(min=1, help="The latest lines alone.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell every move of what is in service, the oldest first."""
    with _opened(task, store) as at:
        ledger = at.store.ledger(service_key(at.task))
        champions, times = at.store.champion_history(at.task), at.store.champion_times(at.task)
        took = read_promotions(at.store, at.task)
    lines = told.history(ledger, champions, times, took)
    lines = lines if limit is None else lines[-limit:]
    if as_json:
        _print_json(lines)
    else:
        told.show_history(Console(highlight=False), lines)


def learn(task: TaskArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Have the watcher try to improve the task now."""
    with _opened(task, store, to_write=True) as at:
        Helm(at.store, at.task, time.time).ask()
        standing = at.store.standing(at.task, "learning")
        is_watched = at.store.find_lease(watch_lease(at.task)) is not None
    waits = standing.content["why"] if standing and standing.content["state"] != "nothing new" else None
    if as_json:
        _print_json({"task": at.task, "moved": "asked", "is_watched": is_watched, "waits_for": waits})
        return
    _say(f"The watcher of {at.task!r} is asked to try.")
    if not is_watched:
        _say("None is at work now: start gainful watch, or gainful serve --improve.")
    if waits is not None:
        _say(f"It said last: {waits}.")


def policies(
    task: TaskArgument,
    policy: Annotated[str | None, typer.Argument(help="Its id, or 6 digits or more: shows that one whole.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the policies of a task, or show one whole.

    Listed are those that were ever in service, on their way in, or proven by a run: when they came, whether they are
    in service, a canary or the former champion now, and whether they are certified by a confirmation or were forced
    in by a person.
    """
    with _opened(task, store) as at:
        known = known_policies(at.store, at.task)
        shown = at.store.policy(policy) if policy is not None else None
    console = Console(highlight=False)
    if as_json:
        _print_json(known if shown is None else shown)
    elif shown is not None:
        told.show_policy(console, shown, next((one for one in known if one.policy == shown.id), None))
    else:
        told.show_policies(console, known)


def pause(task: TaskArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Learn and ramp no further; what does harm is still taken back.

    No run is begun, one under way stops, and a challenger on its way in keeps the share of requests that it has.
    Watching goes on: a challenger or champion that proves worse is taken back by itself. To keep the champion even
    then, use `gainful pin`. `gainful resume` ends it.
    """
    _pull(task, store, as_json, Helm.pause, "Learning is paused; what is in service is still watched.")


def resume(task: TaskArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Learn again."""
    _pull(task, store, as_json, Helm.resume, "Learning goes on.")


def pin(task: TaskArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Keep the champion whatever is seen: automatic roll-back stops.

    While it is pinned, nothing replaces the champion: no run, no challenger, and no automatic roll-back either, even
    where evidence shows that it does harm; evidence is still gathered and told. `gainful pause` is the milder lever:
    it stops learning, and leaves automatic roll-back on. A person may still `rollback` or `promote`. `gainful unpin`
    ends it.
    """
    _pull(task, store, as_json, Helm.pin, "The champion is pinned.")


def unpin(task: TaskArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Let the champion be replaced again."""
    _pull(task, store, as_json, Helm.unpin, "The champion may be replaced again.")


def promote(
    task: TaskArgument,
    policy: Annotated[str, typer.Argument(help="The policy's id, or at least 6 digits of its beginning.")],
    holdback: HoldbackOption = HOLDBACK,
    yes: YesOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a policy into service without a proof: hold-out and canary are skipped.

    The policy answers all callers from the next request on, but for the share that `--holdback` leaves on the former
    champion. No confirmation on unseen cases was made and no canary was watched, so nothing bounds the chance that it
    is worse; the ledger says so. It is then watched against the hold-back and taken back where it proves worse;
    with `--holdback 0` nothing is compared any more. `gainful policies TASK` lists ids.
    """
    with _opened(task, store, to_write=True) as at:
        id = at.store.policy(policy).id
        _refuse_anothers(at, id)
        voids = FORCED if holdback else f"{FORCED}; {ALONE}"
        _ask(f"Put policy {id[:12]} into service for {at.task!r}? This voids: {voids}.", yes or as_json)

        def move(helm: Helm) -> Service:
            return helm.force(id, next_seed(at.task, helm.state), holdback)

        _moved(at, move, as_json, f"Policy {id[:12]} is in service.")


def rollback(
    task: TaskArgument,
    to: Annotated[str | None, typer.Option(help="A policy that was in service [default: the one before].")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the former champion back into service, from the next request on.

    A challenger on its way in ends with it, and what was certified of the champion no longer concerns what is in
    service; the ledger says so. `--to` takes any policy that was in service once: `gainful policies TASK` lists them.
    """
    with _opened(task, store, to_write=True) as at:
        _moved(at, lambda helm: helm.roll_back(REASON, to=to), as_json, "Policy {champion} is back in service.")


def lock(
    task: TaskArgument,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write it, else it is shown.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the champion into a file that restores it elsewhere."""
    with _opened(task, store) as at:
        found = locks.make_lock(at.store, at.task)
    if output is None:
        sys.stdout.write(found.data().decode())
        return
    try:
        output.write_bytes(found.data())
    except OSError as error:
        raise StoreError(f"{str(output)!r} cannot be written: {error.strerror}; choose another --output") from error
    if as_json:
        _print_json({"file": str(output), "task": found.task, "champion": found.id, "sha256": found.sha256})
    else:
        _say(f"Policy {found.id[:12]} of {found.task!r} is locked in {output}. Restore it with: gainful unlock FILE")
        adapter = found.policy.adapter
        if adapter is not None:
            _say(f"It needs {adapter.label}: take along {adapter_folder() / adapter.sha256}")


def unlock(
    file: Annotated[Path, typer.Argument(help="What gainful lock wrote.")],
    holdback: HoldbackOption = HOLDBACK,
    yes: YesOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put exactly the policy of a lock file into service here, all requests at once.

    Hold-out and canary are skipped as by `gainful promote`: the policy was confirmed, if at all, on another store's
    cases, and the ledger says so. A file in which a byte was changed is refused; weights are not in it, so the files
    of an adapter must be here already.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise StoreError(f"lock file {str(file)!r} cannot be read: {error.strerror}; correct the path") from error
    found = locks.read_lock(data, str(file))
    with open_store(store or session.default_store()) as opened:
        at = _Place(opened, found.task)
        if opened.champion(found.task) != found.id:
            asked = f"Put policy {found.id[:12]} into service for {found.task!r}?"
            _ask(f"{asked} This voids: {locks.void(found)}.", yes or as_json)
        words_of = f"Policy {found.id[:12]} is in service."
        _moved(at, lambda helm: locks.restore(opened, found, helm, holdback), as_json, words_of)


def forget(
    key: Annotated[str, typer.Option(help="The name of the caller's key; empty for callers without one.")],
    yes: YesOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove all that a caller brought, and what was learned from it, for good.

    Requests and replies, feedback, cases, repairs and probes go, and every policy that shows a word of them: a
    champion or challenger that does is taken out of service first. Adapters trained on it are deleted. The file is
    written anew, so that no byte stays on the disk; receipts that quoted it can no longer be replayed.
    """
    place = _existing(store)
    with open_store(place) as opened:
        _ask(f"Remove all that key {key!r} brought, and what was learned from it, for good?", yes or as_json)
        found = forgetting.forget(opened, key, opened.tasks(), session.beside(place) / "receipts", time.time)
    if as_json:
        _print_json(msgspec.structs.asdict(found))
    else:
        _say(told.forgotten(found))


def watch(
    tasks: Annotated[list[str], typer.Argument(help="Tasks, as for gainful serve.")],
    model: Annotated[str, typer.Option(help="embedded, gguf:PATH, hf:REPO/FILE or openai:NAME.")] = "embedded",
    once: Annotated[bool, typer.Option("--once", help="Do all that is due now, and end: for a clock to call.")] = False,
    price: PriceOption = None,
    store: StoreOption = None,
) -> None:
    """Learn from what servers on the store answer; bring in what is proven, take back what is worse."""
    log_to(sys.stderr)
    process.watch(tasks, model, store or session.default_store(), once=once, price=price_of(price))


COMMANDS = (watch, status, history, policies, learn, pause, resume, pin, unpin, promote, rollback, lock, unlock, forget)


# --- what several of them do ------------------------------------------------------------------------------


class _Place(NamedTuple):
    """An open store, and the name of a task in it."""

    store: Store
    task: str


@contextmanager
def _opened(task: str, store: str | None, *, to_write: bool = False) -> Iterator[_Place]:
    """Open a store that is there, and find the task in it; raises ``StoreError`` naming the tasks that are."""
    place, name = _existing(store) if to_write else store or session.default_store(), name_of(task)
    with open_store(place) if to_write else open_for_reading(place) as opened:
        known = opened.tasks()
        if name not in known:
            listed = ", ".join(map(words.clean, known)) or "none yet"
            raise StoreError(f"store {spoken_place(place)!r} knows no task {name!r}; give one of: {listed}")
        yield _Place(opened, name)


def _refuse_anothers(at: _Place, policy: str) -> None:
    """Raise ``StoreError`` for a policy that was tried on other tasks and never on this one."""
    history = [one.policy for one in at.store.champion_history(at.task)]
    if policy in history or at.store.attempts(at.task, policy):
        return
    others = [task for task in at.store.tasks() if at.store.attempts(task, policy)]
    if others:
        raise StoreError(
            f"policy {policy[:12]} has answered cases of {', '.join(map(repr, others))} and none of {at.task!r}; "
            "promote a policy of this task's own"
        )


def _existing(store: str | None) -> str:
    """Return where the store is; raises ``StoreError`` where no file is.  A server says so itself."""
    place = store or str(session.default_store())
    file = store_file(place)
    try:
        is_there = file is None or file.exists()
    except OSError as error:
        raise StoreError(f"store {file} cannot be reached ({error.strerror}); name another, or get access") from error
    if not is_there:
        raise StoreError(f"there is no store at {str(file)!r}; name the one that the task is served from (--store)")
    return place


def _pull(task: str, store: str | None, as_json: bool, move: Callable[[Helm], Service], said: str) -> None:
    with _opened(task, store, to_write=True) as at:
        _moved(at, move, as_json, said)


def _moved(at: _Place, move: Callable[[Helm], Service], as_json: bool, said: str) -> None:
    """Make *move*, and say what it came to and what it voids; a move that changes nothing says so."""
    helm = Helm(at.store, at.task, time.time)
    before = helm.state
    after = move(helm)
    line = at.store.ledger(service_key(at.task))[after.lines - 1] if after.lines > before.lines else None
    void = line.content.get("void", "") if line else ""
    champion = at.store.champion(at.task)
    if as_json:
        kind = line.kind if line else None
        _print_json({"task": at.task, "moved": kind, "champion": champion, "void": void})
        return
    _say(said.format(champion=(champion or "")[:12]) if line else "Nothing changed: it was so already.")
    if void:
        _say(f"This voids: {void}.")


def _ask(question: str, is_settled: bool) -> None:
    """Ask a person who is there; a script has decided already."""
    if not is_settled and sys.stdin.isatty() and not typer.confirm(question, err=True):
        raise Stopped("nothing was changed")


def _say(sentence: str) -> None:
    Console(highlight=False).print(escape(words.clean(sentence)), soft_wrap=True)


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")

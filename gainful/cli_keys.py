"""The commands ``gainful keys add|list|revoke``: who may call a server."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gainful.loop import session
from gainful.proxy.keys import make_key
from gainful.store import Key, open_store

keys = typer.Typer(help="Say who may call a server.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(help="What the key is called, in logs and in the store.")]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="A file or postgresql://... [default: in your data directory].")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")]


@keys.command()
def add(
    name: NameArgument,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="The most requests a minute.")] = None,
    own_data: Annotated[
        bool, typer.Option("--own-data", help="Learn nothing from this caller's words, and show them to nobody.")
    ] = False,
    own_task: Annotated[
        bool,
        typer.Option("--own-task", help="Learn from this caller's words for it alone, and from no other's for it."),
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a caller in; its secret is shown this once."""
    secret, key = make_key(name, requests_per_minute=requests_per_minute, own_data=own_data, own_task=own_task)
    with open_store(store or session.default_store()) as opened:
        opened.put_key(key)
    if as_json:
        _print_json({**_shown(key), "secret": secret})
    else:
        print(secret)
        _say(f"This is the secret of {name!r}. It is stored nowhere: keep it, it is not shown again.")


@keys.command(name="list")
def list_keys(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the keys, revoked ones too, without their secrets."""
    with open_store(store or session.default_store()) as opened:
        found = opened.keys()
    if as_json:
        _print_json([_shown(key) for key in found])
        return
    table = Table("name", "made", "requests a minute", "data", "state", box=None)
    for key in found:
        made = datetime.fromtimestamp(key.created_at, UTC).strftime("%Y-%m-%d %H:%M")
        limit = str(key.requests_per_minute or "any number")
        table.add_row(escape(key.name), made, limit, _own(key), "revoked" if key.revoked else "valid")
    Console().print(table if found else "There is no key yet; make one with: gainful keys add NAME")


@keys.command()
def revoke(name: NameArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Shut a caller out for good; servers know within about a second."""
    with open_store(store or session.default_store()) as opened:
        opened.revoke_key(name)
    if as_json:
        _print_json({"name": name, "revoked": True})
    else:
        _say(f"The key {name!r} is revoked.")


def _shown(key: Key) -> dict[str, Any]:
    """Return all of a key but its digest."""
    return {field: getattr(key, field) for field in key.__struct_fields__ if field != "sha256"}


def _own(key: Key) -> str:
    return "own task" if key.own_task else "own" if key.own_data else "shared"


def _say(sentence: str) -> None:
    """Speak to people; what scripts read is on standard output."""
    Console(stderr=True).print(escape(sentence), soft_wrap=True, highlight=False)


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")

"""The folder of adapters: low-rank weights by their digest, where every model finds them.

    <sha256>/adapter_model.safetensors   the weights; the folder is named by their SHA-256
             adapter_config.json         how PEFT reads them
             adapter.gguf                the same weights as llama.cpp reads them, where it can
             README.md                   the model card, with what was certified where it was
             claim.json, statement.dsse.json    of the receipt: what quotes no case
             cases.json                  the ids of the cases that it was trained on

Guarantees: an adapter is there whole or not at all; what is found has the digests that the policy names.  Nothing here
reads a weight, and nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec
from platformdirs import user_data_path

from gainful.core import Adapter, AdapterNotFound, JsonObject, RequestRefused
from gainful.models.gguf import gguf_digest

WEIGHTS, CONFIG, GGUF = "adapter_model.safetensors", "adapter_config.json", "adapter.gguf"
CASES, CARD = "cases.json", "README.md"
CLAIM, STATEMENT = "claim.json", "statement.dsse.json"
CERTIFIED = "## Certified"  # begins the last section of a card
MEMBER = "adapter"  # of a request: the policy's adapter, for the model to take out


def adapter_folder() -> Path:
    """Return where adapters lie: ``GAINFUL_ADAPTERS``, else ``adapters`` in the user's data directory."""
    told = os.environ.get("GAINFUL_ADAPTERS")
    return Path(told).expanduser() if told else user_data_path("gainful") / "adapters"


def find_adapter(adapter: Adapter) -> Path:
    """Return the folder of *adapter*; its files are read once, and again whenever they were written to.

    Raises ``AdapterNotFound`` where it is not here, or is not what *adapter* names.
    """
    folder = adapter_folder() / adapter.sha256
    wanted = {WEIGHTS: adapter.sha256, GGUF: adapter.gguf}
    for name, sha256 in wanted.items():
        if not sha256:
            continue
        try:
            seen = gguf_digest(folder / name)
        except OSError as error:
            raise AdapterNotFound(
                f"{adapter.label}: {folder / name} cannot be read ({error.strerror}); copy the folder from "
                "where it was trained, or set GAINFUL_ADAPTERS to where it lies"
            ) from error
        if seen != sha256:
            raise AdapterNotFound(
                f"{adapter.label}: {folder / name} has sha256 {seen[:16]} where {sha256[:16]} was expected; it was "
                "changed or cut off: copy it again from where it was trained"
            )
    return folder


def keep_adapter(folder: Path) -> Path:
    """Move the finished *folder* to its place among the adapters by one rename, and return that place.

    Where the same weights are there already, whole, those stay and *folder* is removed.  Raises ``AdapterNotFound``
    where a file is missing from *folder* or the place cannot be written.
    """
    try:
        for name in (WEIGHTS, CONFIG):
            (folder / name).stat()
        place = adapter_folder() / gguf_digest(folder / WEIGHTS)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".keeping-", dir=place.parent) as scratch:
            ready = folder
            if folder.stat().st_dev != place.parent.stat().st_dev:  # another disk: a rename cannot cross over
                ready = Path(shutil.copytree(folder, Path(scratch) / "ready"))
            _settle(ready, place, Path(scratch) / "broken")
        if folder.is_dir():
            shutil.rmtree(folder)
    except OSError as error:
        raise AdapterNotFound(
            f"the adapter in {folder} cannot be kept in {adapter_folder()} ({error.strerror or error}); it needs "
            f"{WEIGHTS} and {CONFIG}, and a place that can be written"
        ) from error
    return place


def _settle(ready: Path, place: Path, aside: Path) -> None:
    """Rename *ready* to *place*, unless it is there; what is broken there goes to *aside*."""
    while not _is_whole(place, ready):
        try:
            ready.rename(place)
            return
        except OSError:
            if not place.is_dir():
                raise
        if not _is_whole(place, ready):  # else another process was first
            place.rename(aside)


def _is_whole(place: Path, ready: Path) -> bool:
    """Whether *place* holds all that *ready* has, the weights as they are named and as llama.cpp reads them."""
    try:
        same = not (ready / GGUF).is_file() or gguf_digest(place / GGUF) == gguf_digest(ready / GGUF)
        return same and gguf_digest(place / WEIGHTS) == place.name and (place / CONFIG).is_file()
    except OSError:
        return False


def read_adapter(folder: Path, base: str) -> Adapter:
    """Return the adapter whose files lie in *folder*, for the model called *base*.

    Raises ``AdapterNotFound`` for files that are missing or no adapter.
    """
    try:
        config = json.loads((folder / CONFIG).read_text())
        gguf = gguf_digest(folder / GGUF) if (folder / GGUF).is_file() else ""
        return msgspec.convert(
            {
                "sha256": gguf_digest(folder / WEIGHTS),
                "base": base,
                "rank": config["r"],
                "alpha": config["lora_alpha"],
                "gguf": gguf,
            },
            Adapter,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterNotFound(
            f"{folder} holds no adapter ({type(error).__name__}: {error}); it needs {WEIGHTS} and {CONFIG}"
        ) from error


def carry_receipt(adapter: Adapter, receipt: Path) -> None:
    """Lay beside *adapter* what of *receipt* may go wherever the weights go, and say in its card what was certified.

    That is the claim and the signature over all of the receipt's files; cases and answers stay where they are.  Done
    again it changes nothing; where the adapter was certified before, the later receipt counts.  Raises
    ``AdapterNotFound`` where it cannot be written.
    """
    folder = adapter_folder() / adapter.sha256
    try:
        claim = json.loads((receipt / CLAIM).read_bytes())
        for name in (CLAIM, STATEMENT):
            shutil.copyfile(receipt / name, folder / name)
        words = (folder / CARD).read_text(encoding="utf-8").split(CERTIFIED)[0].rstrip()
        (folder / CARD).write_text(f"{words}\n\n{CERTIFIED}\n\n{_certified(claim, receipt.name)}\n", encoding="utf-8")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterNotFound(f"the card of {adapter.label} in {folder} cannot be written: {error}") from error


def _certified(claim: JsonObject, receipt: str) -> str:
    rows = {
        "decision": f"{claim['decision']}: {claim['reason']}",
        "held-out cases": str(claim["n"]),
        "right before": f"{100 * claim['before']:.1f} %",
        "right with it": f"{100 * claim['after']:.1f} %",
        "certified gain": f"at least {100 * claim['difference']['low']:+.1f} points",
        "level": f"{float(claim['level']):.2g}, of the lifetime of its task",
        "receipt": f"`{receipt}`; its claim and its signed digests lie beside this card",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def note_cases(folder: Path, cases: Iterable[str]) -> None:
    """Write into *folder* which cases its adapter was trained on; nothing else about them is kept."""
    (folder / CASES).write_bytes(msgspec.json.encode(sorted(set(cases))))


def trained_on(adapter: Adapter) -> frozenset[str] | None:
    """Return the ids of the cases that *adapter* was trained on; ``None`` where nobody has noted them."""
    try:
        return frozenset(msgspec.json.decode((adapter_folder() / adapter.sha256 / CASES).read_bytes(), type=list[str]))
    except (OSError, msgspec.MsgspecError):
        return None


def remove_adapter(adapter: Adapter) -> None:
    """Delete the files of *adapter*, its cases last: by those it is found again where this was cut off.

    Raises ``AdapterNotFound`` where they cannot be deleted.
    """
    folder = adapter_folder() / adapter.sha256
    try:
        for file in sorted(folder.iterdir(), key=lambda file: file.name == CASES) if folder.is_dir() else ():
            file.unlink()
        if folder.is_dir():
            folder.rmdir()
    except OSError as error:
        raise AdapterNotFound(
            f"{adapter.label} cannot be deleted: {error.filename or folder}: {error.strerror}; delete it by hand"
        ) from error


def taken_out(body: JsonObject) -> tuple[Adapter | None, JsonObject]:
    """Return the adapter that *body* asks for, and the body without it; the same object where there is none.

    Raises ``RequestRefused`` where it is none.
    """
    if MEMBER not in body:
        return None, body
    try:
        adapter = msgspec.convert(body[MEMBER], Adapter)
    except msgspec.ValidationError as error:
        raise RequestRefused(
            f"the request's {MEMBER} is none: {error}; it comes from a policy, leave it out"
        ) from error
    return adapter, without_adapter(body)


def without_adapter(body: JsonObject) -> JsonObject:
    """Return *body* as the model alone is asked."""
    return {name: value for name, value in body.items() if name != MEMBER}

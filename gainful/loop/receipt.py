"""Write a receipt: the folder that lets a stranger check one confirmation offline, without this package.

Guarantees: the folder appears whole or not at all; the same confirmation gives the same bytes, so a resumed
run may write it again; every file is named with its SHA-256 in a signed in-toto statement.  The format is in
docs/receipt.md.  Judging a receipt is left to ``gainful.loop.verify``, which shares no code with this file.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import math
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from gainful.core import Attempt, Case, JsonObject, Policy, ReceiptError, Value, canonical, digest
from gainful.loop.events import Decided, Looked
from gainful.store.store import LedgerEntry

FORMAT = "urn:gainful:receipt:v1"
STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PACKAGES = ("gainful", "msgspec", "xllamacpp", "aiohttp", "jsonschema", "cryptography", "reasoning-gym")

NULL_HYPOTHESIS = (
    "On the population that the held-out cases were drawn from, the challenger's expected score is not higher "
    "than the champion's by more than the margin."
)
NOT_CLAIMED = (
    "Nothing is claimed unless the held-out cases are exchangeable draws from the population the claim is about "
    "and were seen by no learner; this receipt cannot prove either.",
    "Nothing is claimed about other populations: other users, other tools, other languages, "
    "or the same ones after they change.",
    "Nothing is claimed about another model, another file of the same model, another engine "
    "or other settings than those named in registration.json.",
    "Nothing is claimed about single cases: the challenger may answer some of them worse than the champion did.",
    "Nothing is claimed beyond what the proof checks measure: a check that accepts a wrong answer is believed.",
    "The difference of the two means is not the expected gain: a challenger is quoted because it won, "
    "so only the lower bound counts.",
)


class Registration(Value, frozen=True):
    """What is fixed before the first held-out call; ``hash`` is what enters the ledger.

    ``population`` is the name that the hold-out's digest covers: the task's.  ``holdout_size`` is what the hold-out
    holds, ``None`` where it is fresh for every confirmation; ``size`` is how many cases may be used.  ``level`` and
    ``base`` are decimal texts as in the ledger.  ``task``, ``model_spec`` and ``seed`` are what a run is repeated
    from; ``checks`` are the proof checks' specs.
    """

    task: JsonObject
    kind: JsonObject
    checks: tuple[JsonObject, ...]
    population: str
    holdout: str
    holdout_size: int | None
    champion: str
    challenger: str
    test: Literal["sign", "e-process"]
    size: int
    looks: tuple[int, ...]
    margin: float
    base: str
    rank: int
    level: str
    order: str
    model_spec: str
    model: JsonObject
    seed: int
    version: str

    @property
    def hash(self) -> str:
        """The SHA-256 of registration.json."""
        return digest(self)


class Call(Value, frozen=True):
    """A stored model call: the memo's key, which covers model, request and sample, and the body of the reply."""

    key: str
    reply: JsonObject


@dataclass(frozen=True)
class Confirmation:
    """All that a receipt tells of one confirmation.

    ``holdout`` are all the cases that were opened, in any order.  ``before`` and ``after`` are the champion's
    and the challenger's attempts, judged by the registered checks, one per case, in evaluation order, for the
    cases that were used.  ``calls`` holds every call those attempts name.  ``ledger`` is the whole ledger of
    the hold-out, this confirmation's closing line included.
    """

    registration: Registration
    decided: Decided
    looks: Sequence[Looked]
    champion: Policy
    challenger: Policy
    holdout: Sequence[Case]
    before: Sequence[Attempt]
    after: Sequence[Attempt]
    calls: Iterable[Call]
    ledger: Sequence[LedgerEntry]


def write_receipt(folder: Path, confirmation: Confirmation, key: Ed25519PrivateKey) -> Path:
    """Write the receipt of *confirmation* into *folder*, signed with *key*, and return the folder.

    Raises ``ReceiptError`` when the parts do not belong together, when *folder* holds something else already, or when
    it cannot be written; nothing is left behind then.
    """
    _require_consistent(confirmation)
    partial = folder.with_name(folder.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "policies").mkdir(parents=True)
        subjects = [_write(partial, name, lines) for name, lines in _files(confirmation)]
        _write(partial, "statement.dsse.json", [_envelope(subjects, key)])
        if folder.exists():
            return _same(folder, partial)
        partial.rename(folder)
    except OSError as error:
        raise ReceiptError(
            f"receipt {str(folder)!r} cannot be written: {error.strerror or error}; free space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


# --- the files ------------------------------------------------------------------------------------------


def _files(c: Confirmation) -> Iterator[tuple[str, Iterable[Any]]]:
    """Yield every file's name and lines; a file of one line ends without a line feed if it is ``.json``."""
    yield "registration.json", [c.registration]
    yield "claim.json", [claim(c)]
    yield "holdout.json", [holdout_index(c.registration.population, c.holdout)]
    used = {case.id: case for case in c.holdout}
    yield "cases.jsonl", (used[attempt.case] for attempt in c.before)
    yield "pairs.jsonl", (_pair(used[b.case], b, a) for b, a in zip(c.before, c.after, strict=True))
    yield "outputs.jsonl", (_outputs(b, a) for b, a in zip(c.before, c.after, strict=True))
    yield "calls.jsonl", c.calls
    yield "policies/champion.json", [c.champion]
    yield "policies/challenger.json", [c.challenger]
    yield "diff.json", [policy_diff(c.champion, c.challenger)]
    yield "environment.json", [environment(c.registration.model)]
    yield "ledger.jsonl", c.ledger


def claim(confirmation: Confirmation) -> JsonObject:
    """Return claim.json: what is claimed, on what grounds, and what is not claimed."""
    registered, decided = confirmation.registration, confirmation.decided
    scores = [paired_scores(b, a) for b, a in zip(confirmation.before, confirmation.after, strict=True)]
    return {
        "format": FORMAT,
        "null_hypothesis": NULL_HYPOTHESIS,
        "margin": registered.margin,
        "size": registered.size,
        "looks": registered.looks,
        "level": registered.level,
        "test": registered.test,
        "decision": "promoted" if decided.promoted else "not promoted",
        "reason": decided.reason,
        "n": decided.n,
        "looked": [msgspec.structs.asdict(look) for look in confirmation.looks],
        "before": math.fsum(before for before, _ in scores) / decided.n,
        "after": math.fsum(after for _, after in scores) / decided.n,
        "difference": msgspec.structs.asdict(decided.difference),
        "not_claimed": NOT_CLAIMED,
    }


def holdout_index(population: str, cases: Iterable[Case]) -> JsonObject:
    """Return holdout.json; its digest is that of a hold-out that is not fresh (``tasks.Holdout``)."""
    return {"population": population, "cases": sorted([case.id, digest(case.target)] for case in cases)}


def policy_diff(champion: Policy, challenger: Policy) -> list[JsonObject]:
    """Return diff.json: where the two policies differ, by JSON pointer (RFC 6901); lists count as one value.

    A side without a value there lacks its member: the policy leaves it at its default.

    >>> policy_diff(Policy(), Policy(max_tokens=64))
    [{'at': '/max_tokens', 'challenger': 64}]
    """
    return list(_differences("", msgspec.to_builtins(champion), msgspec.to_builtins(challenger)))


def _differences(at: str, champion: JsonObject, challenger: JsonObject) -> Iterator[JsonObject]:
    for name in sorted(champion.keys() | challenger.keys()):
        pointer = f"{at}/{name.replace('~', '~0').replace('/', '~1')}"
        sides = {
            arm: policy[name] for arm, policy in (("champion", champion), ("challenger", challenger)) if name in policy
        }
        values = list(sides.values())
        if len(values) == 2 and all(isinstance(value, dict) for value in values):
            yield from _differences(pointer, *values)
        elif len(values) == 1 or canonical(values[0]) != canonical(values[1]):
            yield {"at": pointer, **sides}


def environment(model: JsonObject) -> JsonObject:
    """Return environment.json: interpreter, platform, versions of the packages that matter, the model's identity."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "machine": platform.machine(),
        "packages": versions,
        "model": model,
    }


def paired_scores(before: Attempt, after: Attempt) -> tuple[float, float]:
    """Return the champion's and the challenger's score; one that no check could give speaks against the challenger."""
    return 1.0 if before.score is None else before.score, 0.0 if after.score is None else after.score


def _pair(case: Case, before: Attempt, after: Attempt) -> JsonObject:
    champion, challenger = paired_scores(before, after)
    return {
        "case": case.id,
        "target": case.target,
        "champion": champion,
        "challenger": challenger,
        "champion_output": digest(before.answer),
        "challenger_output": digest(after.answer),
    }


def _outputs(before: Attempt, after: Attempt) -> JsonObject:
    arms = {"champion": before, "challenger": after}
    return {"case": before.case} | {
        arm: {"answer": a.answer, "calls": a.calls, "verdicts": a.verdicts} for arm, a in arms.items()
    }


def _require_consistent(c: Confirmation) -> None:
    """Raise ``ReceiptError`` for parts that do not belong together: such a receipt would fail its own verification."""
    ids = {"champion": (c.registration.champion, c.champion), "challenger": (c.registration.challenger, c.challenger)}
    for arm, (registered, policy) in ids.items():
        if policy.id != registered:
            raise ReceiptError(
                f"the {arm}'s id is {policy.id!r} but {registered!r} was registered; pass the policy that ran"
            )
    if [a.case for a in c.before] != [a.case for a in c.after] or len(c.before) != c.decided.n:
        raise ReceiptError(
            f"{len(c.before)} and {len(c.after)} attempts for a decision after n={c.decided.n} cases; "
            "pass both arms' attempts, case by case in evaluation order"
        )
    opened = {case.id for case in c.holdout}
    for attempt in (*c.before, *c.after):
        if attempt.case not in opened:
            raise ReceiptError(f"case {attempt.case[:12]!r} was not opened; pass every opened case as holdout")


# --- writing --------------------------------------------------------------------------------------------


def _write(folder: Path, name: str, lines: Iterable[Any]) -> JsonObject:
    """Write one file, line by line, and return its in-toto subject."""
    end = b"\n" if name.endswith(".jsonl") else b""
    hashed = hashlib.sha256()
    with (folder / name).open("wb") as file:
        for line in lines:
            data = canonical(line) + end
            hashed.update(data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return {"name": name, "digest": {"sha256": hashed.hexdigest()}}


def _same(folder: Path, partial: Path) -> Path:
    """Return *folder* if it is the receipt in *partial*: a resumed run writes it twice."""
    statement = "statement.dsse.json"
    if (folder / statement).is_file() and (folder / statement).read_bytes() == (partial / statement).read_bytes():
        return folder
    raise ReceiptError(f"{str(folder)!r} exists and is not this receipt; choose a new folder")


# --- signing --------------------------------------------------------------------------------------------


def user_key(path: Path) -> Ed25519PrivateKey:
    """Return the user's signing key in the PEM file *path*, made at first use, readable by its owner alone (0600).

    Raises ``ReceiptError`` when the file is no Ed25519 key, when others may read it, or when it cannot be made.
    """
    try:
        return _load_key(path) if path.exists() else _make_key(path)
    except OSError as error:
        raise ReceiptError(
            f"signing key {str(path)!r} cannot be used: {error.strerror or error}; check the folder"
        ) from error


def _load_key(path: Path) -> Ed25519PrivateKey:
    if path.stat().st_mode & 0o077:
        raise ReceiptError(
            f"signing key {str(path)!r} can be read by others; run chmod 600 on it, or remove it for a new one"
        )
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ReceiptError(f"signing key {str(path)!r} is not a PEM private key; remove it for a new one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ReceiptError(f"signing key {str(path)!r} is {type(key).__name__}, not Ed25519; remove it for a new one")
    return key


def _make_key(path: Path) -> Ed25519PrivateKey:
    """Write a new key beside *path* and link it there: of two processes at first use, one key wins and both use it."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return _load_key(path)
    finally:
        draft.unlink()
    return key


def key_id(public: bytes) -> str:
    """Return the id of a raw 32-byte Ed25519 public key: its SHA-256."""
    return hashlib.sha256(public).hexdigest()


def _envelope(subjects: Sequence[Mapping[str, Any]], key: Ed25519PrivateKey) -> JsonObject:
    """Return a DSSE v1 envelope around an in-toto Statement v1 that names every file of the receipt."""
    public = key.public_key().public_bytes_raw()
    payload = canonical(
        {
            "_type": STATEMENT,
            "subject": sorted(subjects, key=lambda subject: str(subject["name"])),
            "predicateType": FORMAT,
            "predicate": {"public_key": public.hex(), "key_id": key_id(public)},
        }
    )
    signature = key.sign(pre_authentication(PAYLOAD_TYPE, payload))
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key_id(public), "sig": base64.b64encode(signature).decode()}],
    }


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes a DSSE signature covers (PAE, DSSE v1.0.2, protocol.md).

    >>> pre_authentication("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)

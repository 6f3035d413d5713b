"""Check a receipt, offline and alone: this file needs Python 3.11, its standard library and nothing else.

    python verify.py FOLDER [--key KEY_ID] [--json]      exit 0: it holds, 1: it does not, 2: it cannot be read

The format is docs/receipt.md.  Whatever a receipt claims is computed again from what it holds, by code that is
shared with no other file of the package: two programs have to be wrong in the same way for a false receipt to
pass.  Only the signature needs more (``cryptography``), and says so when it is missing.

Guarantees: a receipt is data, nothing in it is ever run, no name in it is ever opened as a file; time and memory are
bounded; whatever a hostile receipt holds, the outcome is a report or one sentence.  Left to others: whether the
stored model calls lead to the stored answers (that needs the package: ``gainful verify`` adds it).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import itertools
import json
import math
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import ROUND_DOWN, Context, Decimal
from fractions import Fraction
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

FORMAT = "urn:gainful:receipt:v1"
STATEMENT = "statement.dsse.json"
FILES = (
    "calls.jsonl",
    "cases.jsonl",
    "claim.json",
    "diff.json",
    "environment.json",
    "holdout.json",
    "ledger.jsonl",
    "outputs.jsonl",
    "pairs.jsonl",
    "policies/challenger.json",
    "policies/champion.json",
    "registration.json",
)
TOTAL_BYTES = 1 << 30
HELD_BYTES = 1 << 27  # of all files but calls.jsonl, which is read line by line; Python needs some ten times as much
VALUE_BYTES = 1 << 24
DEPTH = 64
PAIRS = 10_000  # the exact test takes time in the square of the cases on which the arms differ

ZETA = Decimal("3.931949211809544226974907510589")  # the sum of i^-1.3 over all i, rounded up
LOOKS_PERCENT = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
FUTILE = 0.1
UNKNOWN = {"champion": 1.0, "challenger": 0.0}  # missing evidence speaks against the challenger
STAKES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)


class Unreadable(Exception):
    """This is no receipt that can be judged: one sentence says why."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check; ``detail`` is one sentence."""

    name: str
    verdict: Literal["ok", "failed", "skipped"]
    detail: str


@dataclass(frozen=True)
class Report:
    """All findings on one receipt.  ``key_id`` names the key the statement says it is signed with."""

    key_id: str
    decision: str
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether no check failed; a skipped one is neither ok nor failed."""
        return all(finding.verdict != "failed" for finding in self.findings)


class Failed(Exception):
    """Raised by a check, with one sentence: the receipt does not hold."""


class Skipped(Exception):
    """Raised by a check, with one sentence: it could not be made."""


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise Failed(sentence)


def verify(path: str | Path, key: str | None = None, replay: Callable[[Path], str] | None = None) -> Report:
    """Check the receipt in folder *path*; *key* is the id of the key it must be signed with.

    *replay* is the package's own check, made last and only where nothing failed: given the folder, it returns a
    sentence or raises ``Failed`` or ``Skipped``.

    Raises ``Unreadable`` when the folder is no receipt that can be judged.
    """
    root = Path(path)
    findings: list[Finding] = []
    try:
        envelope = _load(root, STATEMENT)
        statement = _statement(envelope)
        receipt: _Receipt | None = None
        try:
            receipt = _receipt(root, statement)
            findings.append(Finding("integrity", "ok", f"all {len(FILES)} files are those the statement names"))
        except Failed as failure:
            findings.append(Finding("integrity", "failed", str(failure)))
        findings.append(_finding("signature", findings, _check_signature, envelope, statement, key))
        for name, check in CHECKS.items():
            findings.append(_finding(name, findings, check if receipt else _not_checked, receipt))
        sound = all(finding.verdict != "failed" for finding in findings)
        findings.append(_finding("replay", findings, (replay or _no_replay) if sound else _not_checked, root))
        decision = str(receipt.claim["decision"]) if receipt else "unknown"
        return Report(str(statement["predicate"]["key_id"]), decision, tuple(findings))
    except OSError as error:
        raise Unreadable(f"{str(root)!r} cannot be read as a receipt: {error.strerror}") from None
    except Failed as failure:
        raise Unreadable(str(failure)) from None
    except SHAPE as error:
        raise Unreadable(f"something is not of the format's shape ({type(error).__name__}: {error!s:.80})") from None


# What a value of an unexpected type, size or absence raises: a receipt may hold anything anywhere.
SHAPE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, MemoryError)


def _finding(name: str, before: Sequence[Finding], check: Callable[..., str], *arguments: Any) -> Finding:
    """Make one check.  Where one *before* it failed, it may find nothing left to judge."""
    try:
        return Finding(name, "ok", check(*arguments))
    except Failed as failure:
        return Finding(name, "failed", str(failure))
    except Skipped as reason:
        return Finding(name, "skipped", str(reason))
    except SHAPE:
        if all(finding.verdict != "failed" for finding in before):
            raise
        return Finding(name, "skipped", "what failed before leaves nothing to judge")


def _not_checked(_: object) -> str:
    raise Skipped("not judged, because a check before it failed")


# --- reading: canonical JSON from plain files, or not at all ---------------------------------------------


def _open(root: Path, name: str) -> int:
    """Open a plain file without following a link or waiting for a pipe."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(root / name, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unreadable(f"{name} is not a plain file; a receipt holds nothing else")
    return descriptor


def _list(root: Path) -> set[str]:
    """Return the names of all files; refuse links, pipes, unknown folders and a receipt beyond its limits."""
    found: dict[str, int] = {}
    for folder in ("", "policies/"):
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = folder + entry.name
                info = entry.stat(follow_symlinks=False)
                if name == "policies" and stat.S_ISDIR(info.st_mode):
                    continue
                if not stat.S_ISREG(info.st_mode):
                    raise Unreadable(f"{name!r} is not a plain file; a receipt holds nothing else")
                found[name] = info.st_size
                if len(found) > 100 or sum(found.values()) > TOTAL_BYTES:
                    raise Unreadable(
                        "the folder holds more than a receipt may; it is none, or it was made to exhaust a reader"
                    )
    return set(found)


def _file_digest(root: Path, name: str) -> str:
    with open(_open(root, name), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lines(root: Path, name: str) -> Iterator[Any]:
    """Yield the values of a ``.jsonl`` file, or the one value of a ``.json`` file."""
    with open(_open(root, name), "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(VALUE_BYTES + 1), b""), 1):
            where = f"{name}, line {number}" if name.endswith("l") else name
            if len(line) > VALUE_BYTES:
                raise Unreadable(f"{where} is longer than {VALUE_BYTES} bytes; no receipt needs that")
            body = line.removesuffix(b"\n") if name.endswith("l") else line
            _require(body is not line or not name.endswith("l"), f"{where} does not end with a line feed")
            yield _parse(body, where)


def _load(root: Path, name: str) -> Any:
    values = list(_lines(root, name))
    return values[0] if len(values) == 1 else _unreadable(f"{name} holds {len(values)} values instead of one")


def _parse(data: bytes, where: str) -> Any:
    """Return a JSON value written in canonical form, without duplicate members, NaN or infinities."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_members, parse_constant=_unreadable, parse_float=_finite)
        same = _canonical(value) == data
    except Unreadable as error:
        raise Unreadable(f"{where}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{where} is not JSON in UTF-8: {type(error).__name__}") from None
    _require(same, f"{where} is not in canonical form (RFC 8785)")
    return value


def _unreadable(sentence: str) -> Any:
    raise Unreadable(sentence)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else _unreadable("an object has two members of one name")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _unreadable(f"{text[:20]} is too large")


def _canonical(value: Any) -> bytes:
    return _text(value, DEPTH).encode()


def _text(value: Any, depth: int) -> str:
    """Write canonical JSON (RFC 8785), but integers in full."""
    if depth == 0:
        raise Unreadable(f"a value is nested deeper than {DEPTH} levels")
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))
        return "{" + ",".join(f"{_text(k, depth - 1)}:{_text(v, depth - 1)}" for k, v in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_text(item, depth - 1) for item in value) + "]"
    if isinstance(value, float):
        return _number(value)
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """Write a float as ECMAScript does (RFC 8785, section 3.2.2.3)."""
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    mantissa, exponent = repr(value).split("e")
    return f"{mantissa}e{int(exponent):+d}"


def _digest(value: Any) -> str:
    return hashlib.sha256(_canonical(value)).hexdigest()


# --- the files and the statement over them ---------------------------------------------------------------


@dataclass(frozen=True)
class _Receipt:
    """A receipt's values; of the calls only the keys."""

    claim: dict[str, Any]
    registration: dict[str, Any]
    holdout: dict[str, Any]
    cases: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    calls: list[str]
    champion: dict[str, Any]
    challenger: dict[str, Any]
    environment: dict[str, Any]
    diff: list[dict[str, Any]]
    ledger: list[dict[str, Any]]

    @property
    def differences(self) -> list[Any]:
        return [pair["challenger"] - pair["champion"] for pair in self.pairs]


def _statement(envelope: dict[str, Any]) -> dict[str, Any]:
    """Return the in-toto Statement v1 inside a DSSE v1 envelope."""
    statement = _parse(_base64(envelope["payload"]), "the statement")
    _require(
        (envelope["payloadType"], statement["_type"], statement["predicateType"])
        == ("application/vnd.in-toto+json", "https://in-toto.io/Statement/v1", FORMAT),
        f"the statement is not one about a receipt of format {FORMAT}",
    )
    return dict(statement)


def _base64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    _require(base64.b64encode(data).decode() == text, "the statement is not in canonical base64")
    return data


def _receipt(root: Path, statement: dict[str, Any]) -> _Receipt:
    """Read all files, when they are exactly those that the statement names, unchanged and canonical."""
    present = _list(root) - {STATEMENT}
    for name in FILES:
        _require(name in present, f"{name} is missing")
    for name in sorted(present):
        _require(name in FILES, f"{name!r} does not belong to a receipt")
    digests = [(name, _file_digest(root, name)) for name in FILES]
    subjects = [(subject["name"], subject["digest"]["sha256"]) for subject in statement["subject"]]
    for (name, digest), subject in zip(digests, subjects, strict=False):
        _require((name, digest) == subject, f"{name} is not the file that was signed")
    _require(len(subjects) == len(digests), "the statement does not name exactly a receipt's files")
    pairs = list(itertools.islice(_lines(root, "pairs.jsonl"), PAIRS + 1))
    if len(pairs) > PAIRS:
        raise Unreadable(f"pairs.jsonl holds more than {PAIRS} pairs; judging them would take too long")
    return _Receipt(
        claim=_load(root, "claim.json"),
        registration=_load(root, "registration.json"),
        holdout=_load(root, "holdout.json"),
        cases=list(_lines(root, "cases.jsonl")),
        pairs=pairs,
        outputs=list(_lines(root, "outputs.jsonl")),
        calls=[call["key"] for call in _lines(root, "calls.jsonl")],
        champion=_load(root, "policies/champion.json"),
        challenger=_load(root, "policies/challenger.json"),
        environment=_load(root, "environment.json"),
        diff=_load(root, "diff.json"),
        ledger=list(_lines(root, "ledger.jsonl")),
    )


def _check_signature(envelope: dict[str, Any], statement: dict[str, Any], pinned: str | None) -> str:
    """DSSE v1: Ed25519 over ``DSSEv1 SP len(type) SP type SP len(payload) SP payload``."""
    public = bytes.fromhex(statement["predicate"]["public_key"])
    key_id = hashlib.sha256(public).hexdigest()
    (signature,) = envelope["signatures"]
    _require(
        key_id == statement["predicate"]["key_id"] == signature["keyid"], "the key's id is not the SHA-256 of the key"
    )
    _require(pinned is None or pinned.lower() == key_id, f"signed with key {key_id}, not with the pinned {pinned}")
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        sentence = "checking it needs the package cryptography; run: pip install cryptography"
        raise (Skipped if pinned is None else Failed)(sentence) from None
    kind, payload = envelope["payloadType"].encode(), _base64(envelope["payload"])
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(_base64(signature["sig"]), message)
    except InvalidSignature:
        raise Failed(f"the signature is not one of key {key_id} over this statement") from None
    if pinned is None:
        return f"unchanged since signed with key {key_id}; whose key that is, only a pinned --key can tell"
    return f"signed with the pinned key {key_id}"


# --- who was compared, on what, in which order -----------------------------------------------------------


def _check_claim(receipt: _Receipt) -> str:
    claim, registered = receipt.claim, receipt.registration
    _require(claim["format"] == FORMAT, f"the claim is not of format {FORMAT}")
    for name in ("margin", "size", "looks", "level", "test"):
        _require(_same(claim[name], registered[name]), f"the claim's {name} is {claim[name]!r:.40}, not as registered")
    _require(_same(receipt.environment["model"], registered["model"]), "it ran with another model than registered")
    sentences = claim["not_claimed"]
    said = isinstance(sentences, list) and bool(sentences) and all(isinstance(s, str) and s for s in sentences)
    _require(said, "what is not claimed is not said")
    return "the claim repeats the registration and says what is not claimed"


def _check_policies(receipt: _Receipt) -> str:
    for arm in ("champion", "challenger"):
        policy = getattr(receipt, arm)
        _require(_digest(policy) == receipt.registration[arm], f"the {arm}'s policy is not the registered one")
    found = list(_diff("", receipt.champion, receipt.challenger))
    _require(_same(receipt.diff, found), "diff.json is not the difference of the two policies")
    return f"both are those registered; they differ in {', '.join(d['at'] for d in found) or 'nothing'}"


def _diff(at: str, champion: dict[str, Any], challenger: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in sorted(champion.keys() | challenger.keys()):
        pointer = f"{at}/{name.replace('~', '~0').replace('/', '~1')}"
        sides = [(arm, p[name]) for arm, p in (("champion", champion), ("challenger", challenger)) if name in p]
        if len(sides) == 2 and all(isinstance(value, dict) for _, value in sides):
            yield from _diff(pointer, champion[name], challenger[name])
        elif len(sides) == 1 or not _same(champion[name], challenger[name]):
            yield {"at": pointer} | dict(sides)


def _check_order(receipt: _Receipt) -> str:
    """The cases used are the first of all opened ones, in the order that the comparison itself fixes."""
    registered, opened = receipt.registration, dict(receipt.holdout["cases"])
    _require(receipt.holdout["cases"] == sorted([id, target] for id, target in opened.items()), "a case stands twice")
    fresh = registered["holdout_size"] is None
    size = registered["size"] if fresh else registered["holdout_size"]
    _require(len(opened) == size >= registered["size"], f"{len(opened)} cases were opened instead of {size}")
    _require(receipt.holdout["population"] == registered["population"], "the population is not the registered one")
    known = fresh or _digest(receipt.holdout) == registered["holdout"]
    _require(known, "the cases opened, with their targets, are not those of the hold-out's digest")
    seed = _digest([registered["holdout"], registered["challenger"], registered["champion"]])
    _require(registered["order"] == seed, "the order's seed is not that of hold-out, challenger and champion")
    order = sorted(opened, key=lambda id: hashlib.sha256((seed + id).encode()).digest())[: receipt.claim["n"]]
    for name, lines in (("pairs", receipt.pairs), ("outputs", receipt.outputs)):
        _require([line["case"] for line in lines] == order, f"{name}.jsonl does not hold the first cases of the order")
    ids = [_digest({"messages": case["messages"], "tools": case.get("tools", [])}) for case in receipt.cases]
    _require(ids == order, "cases.jsonl does not hold the first cases of the order")
    for id, case, pair in zip(ids, receipt.cases, receipt.pairs, strict=True):
        _require(_digest(case.get("target")) == opened[id], f"case {id[:12]} has another target than the hold-out")
        _require(_same(pair["target"], case.get("target")), f"case {id[:12]} has another target among the pairs")
    drawn = (
        "" if registered["holdout_size"] is not None else "; where fresh ones come from, only gainful reproduce tells"
    )
    return f"the {len(order)} cases used are the first of {len(opened)} in the order of their seed{drawn}"


def _same(left: Any, right: Any) -> bool:
    """Equal as JSON: 1 is 1.0, and true is not 1."""
    return _canonical(left) == _canonical(right)


def _check_calls(receipt: _Receipt) -> str:
    """The calls are those behind the answers, each once: none is missing, none is left over."""
    behind = {key for line in receipt.outputs for arm in ("champion", "challenger") for key in line[arm]["calls"]}
    arms = [line[arm] for line in receipt.outputs for arm in ("champion", "challenger")]
    refused = [arm for arm in arms if not arm["calls"]]
    _require(all(arm["answer"] == {"text": ""} for arm in refused), "an answer without a call")
    _require(behind <= set(receipt.calls), f"{len(behind - set(receipt.calls))} calls behind the answers are missing")
    _require(sorted(behind) == sorted(receipt.calls), "calls.jsonl repeats a call or holds one that no answer needs")
    without = f"; {len(refused)} empty answers stand for requests the model refused" if refused else ""
    return f"the {len(behind)} calls behind the answers are there{without}; whose requests they are, a replay tells"


# --- the ledger and the level ----------------------------------------------------------------------------


def _check_ledger(receipt: _Receipt) -> str:
    """The chain is unbroken from its first line; this confirmation was registered in it and then closed as claimed."""
    previous = "0" * 64
    for seq, line in enumerate(receipt.ledger):
        body = {"key": receipt.ledger[0]["key"], "seq": seq, "kind": line["kind"], "content": line["content"]}
        body["previous"] = previous
        previous = _digest(body)
        _require(_same(line, body | {"hash": previous}), f"ledger line {seq} is not the one that was written there")
    mine = _digest(receipt.registration)
    lines = [line for line in receipt.ledger if line["content"].get("registration") == mine]
    _require([line["kind"] for line in lines] == ["opened", "closed"], "the ledger does not open and close it once")
    told = {"decision": receipt.claim["decision"], "n": receipt.claim["n"], "registration": mine}
    _require(_same(lines[1]["content"], told), "the ledger closes this confirmation with another outcome")
    opened = sum(line["kind"] == "opened" for line in receipt.ledger)
    return f"the chain of {len(receipt.ledger)} lines is unbroken; this is one of {opened} confirmations in it"


def _check_level(receipt: _Receipt) -> str:
    """Every level follows from the lines before it: whoever tries again pays, and pays more for each failure."""
    registered, fresh = receipt.registration, receipt.registration["holdout_size"] is None
    first, *rest = receipt.ledger
    granted = first["content"]
    _require(first["kind"] == "epoch", "the ledger does not begin with the hold-out coming into use")
    _require(granted["holdout"] == registered["holdout"], "the ledger is that of another hold-out")
    _require(_same(granted["size"], registered["holdout_size"]), "the ledger gives the hold-out another size")
    base, rank = _share(granted["alpha"]), 1
    pending: dict[str, Any] | None = None
    for line in rest:
        content, kind = line["content"], line["kind"]
        if kind == "opened":
            rank += pending is not None  # aborted: it counts as not promoted
            pending, level = content, _level(base, rank)
            told = (_share(content["base"]), content["rank"], _share(content["level"]))
            _require(told == (base, rank, level), f"ledger line {line['seq']}: the level is {level}, not {told[2]}")
            continue
        if kind != "closed" or pending is None:
            raise Failed(f"ledger line {line['seq']} is out of place: a {kind!r:.20} line can not stand there")
        _require(content["registration"] == pending["registration"], f"ledger line {line['seq']} closes another one")
        pending = None
        if content["decision"] != "promoted":
            rank += 1
        elif not fresh:
            base, rank = level, 1
    (mine,) = (line["content"] for line in rest if _is_opening(line, _digest(registered)))
    for name in ("base", "rank", "level"):
        _require(_same(mine[name], registered[name]), f"the {name} in the ledger is not the registered one")
    return f"level {mine['level']}: confirmation of rank {mine['rank']}, from an error budget of {granted['alpha']}"


def _is_opening(line: dict[str, Any], registration: str) -> bool:
    return bool(line["kind"] == "opened" and line["content"]["registration"] == registration)


def _share(text: str) -> Decimal:
    """Return a decimal text in (0, 1)."""
    _require(bool(re.fullmatch(r"[0-9.]{1,40}([eE]-[0-9]{1,3})?", text)), f"{text!r:.60} is no level")
    value = Decimal(text)
    _require(0 < value < 1, f"the level {text!r:.60} is outside (0, 1)")
    return value


def _level(base: Decimal, rank: int) -> Decimal:
    """Return base * rank^-1.3 / zeta(1.3), rounded down to 12 significant digits."""
    precise = Context(prec=50)
    share = precise.divide(precise.multiply(base, precise.power(Decimal(rank), Decimal("-1.3"))), ZETA)
    return Context(prec=12, rounding=ROUND_DOWN).create_decimal(share)


# --- the scores: the stored answers, judged again ---------------------------------------------------------


def _check_scores(receipt: _Receipt) -> str:
    """Digests, verdicts and scores agree line by line, and every check known here gives the stored verdicts again."""
    checks = receipt.registration["checks"]
    answers: list[tuple[dict[str, Any], dict[str, Any]]] = []
    stored: list[list[Any]] = []
    for case, pair, line in zip(receipt.cases, receipt.pairs, receipt.outputs, strict=True):
        for arm in ("champion", "challenger"):
            where, output = f"case {pair['case'][:12]}, {arm}", line[arm]
            _require(_digest(output["answer"]) == pair[f"{arm}_output"], f"{where}: the answer is not the one scored")
            scores = [verdict.get("score") for verdict in output["verdicts"]]
            known = [score for score in scores if score is not None]
            _require(len(scores) == len(checks), f"{where}: {len(scores)} verdicts of {len(checks)} registered checks")
            _require(all(_is_number(s) and 0 <= s <= 1 for s in known), f"{where}: a score is outside [0, 1]")
            lowest = min(known, default=UNKNOWN[arm])
            _require(_same(pair[arm], lowest), f"{where}: the score is {lowest}, that of the lowest verdict")
            answers.append((case, output["answer"]))
            stored.append(scores)
    unknown = sorted({spec["kind"] for spec in checks} - RESCORED.keys())
    for number, spec in enumerate(checks):
        if spec["kind"] in RESCORED:
            told = [scores[number] for scores in stored]
            for (case, _), score, found in zip(answers, told, RESCORED[spec["kind"]](spec, answers), strict=True):
                _require(score == found, f"{spec['kind']} gives {found}, not {score}, in {case['messages']!r:.80}")
    if unknown:
        raise Skipped(f"this file cannot score {', '.join(unknown)} again; every other verdict is as stored")
    return f"{len(answers)} answers scored again, all as stored"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(left: Any, right: Any, reading: Callable[[str], str]) -> bool:
    """Equal as JSON values, texts as *reading* reads them; numbers by value, true and false only themselves."""
    if isinstance(left, dict) and isinstance(right, dict):
        return set(left) == set(right) and all(_equal(left[name], right[name], reading) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right, [reading] * len(left)))
    if isinstance(left, str) and isinstance(right, str):
        return reading(left) == reading(right)
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _loose(text: str) -> str:
    """Read a text as answer keys do: no blanks, no , . / - _ * ^, letter case and quotes alike."""
    return text.translate({ord(sign): None for sign in " ,./-_*^"}).lower().replace("'", '"')


def _answer_key(spec: dict[str, Any], case: dict[str, Any], answer: dict[str, Any]) -> float | None:
    """1 where the call has the key's name, all required arguments, and each argument one of its allowed values."""
    key: Any = case.get("target")
    call: Any = answer.get("value")
    if key is None:
        return None
    if not (isinstance(call, dict) and type(call.get("name")) is str and type(call.get("arguments")) is dict):
        return 0.0
    functions = [tool["function"] for tool in case.get("tools", [])]
    schema: dict[str, Any] = next((f.get("parameters") or {} for f in functions if f["name"] == call["name"]), {})
    given, wanted = call["arguments"], key["arguments"]
    right = (
        call["name"] == key["name"]
        and all(name in given for name in schema.get("required") or [])
        and all(name in given or "" in allowed for name, allowed in wanted.items())
        and all(
            name in wanted and _allowed(value, wanted[name], (schema.get("properties") or {}).get(name) or {})
            for name, value in given.items()
        )
    )
    return float(right)


def _allowed(value: Any, allowed: list[Any], parameter: dict[str, Any]) -> bool:
    """Say whether *value* matches one of the *allowed* ones, for a parameter of this schema."""
    types = parameter.get("type")
    names = types if isinstance(types, list) else [types]
    if value == "" and all(name in NOT_TEXT for name in names):
        return False
    if value == [] and types == "array" and "" in allowed:
        return True
    return any(_fits(value, one) for one in allowed)


def _fits(value: Any, wanted: Any) -> bool:
    """Say whether *value* equals *wanted*, in which an object, or one in an array, is itself a key."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and _fits_key(value, wanted)
    if isinstance(wanted, list) and isinstance(value, list):
        return len(value) == len(wanted) and all(
            (isinstance(v, dict) and _fits_key(v, w)) if isinstance(w, dict) else _equal(v, w, _loose)
            for v, w in zip(value, wanted, strict=True)
        )
    return _equal(value, wanted, _loose)


def _fits_key(value: dict[str, Any], key: dict[str, Any]) -> bool:
    return all(name in value or "" in allowed for name, allowed in key.items()) and all(
        name in key and any(_equal(member, one, _loose) for one in key[name]) for name, member in value.items()
    )


NOT_TEXT = ("integer", "number", "boolean", "null", "array", "object")


def _exact(spec: dict[str, Any], case: dict[str, Any], answer: dict[str, Any]) -> float | None:
    """1 where the value is the target text, or one of them; blanks and letter case as the check says."""

    def read(text: str) -> str:
        text = " ".join(text.split()) if spec["ignore_space"] else text
        return text.casefold() if spec["ignore_case"] else text

    target, value = case.get("target"), answer.get("value")
    if target is None:
        return None
    wanted = target if isinstance(target, list) else [target]
    return float(isinstance(value, str) and any(read(value) == read(text) for text in wanted))


def _numeric(spec: dict[str, Any], case: dict[str, Any], answer: dict[str, Any]) -> float | None:
    """1 where value and target, read as exact decimals, are no further apart than the tolerance."""
    if case.get("target") is None:
        return None
    target, value = _decimal(case["target"]), _decimal(answer.get("value"))
    if target is None:
        raise Failed(f"the target {case['target']!r:.60} is no number")
    return float(value is not None and abs(value - target) <= Fraction(repr(spec["tolerance"])))


def _decimal(value: Any) -> Fraction | None:
    if not (_is_number(value) or isinstance(value, str)):
        return None
    text = value.replace(",", "").strip() if isinstance(value, str) else repr(value)
    form = r"[-+]?([0-9]{1,300}(\.[0-9]{0,300})?|\.[0-9]{1,300})([eE][-+]?[0-9]{1,3})?"
    return Fraction(Decimal(text)) if re.fullmatch(form, text) else None


def _choice(spec: dict[str, Any], case: dict[str, Any], answer: dict[str, Any]) -> float | None:
    """1 where the value is a label and, if the check compares, the target."""
    value, target = answer.get("value"), case.get("target")
    if value in spec["labels"] and spec["compare"]:
        return None if target is None else float(value == target)
    return float(value in spec["labels"])


def _regex(spec: dict[str, Any], answers: _Answers) -> list[float]:
    """1 where the text matches.  Done in a process of its own: a pattern can be made to run for ever."""
    values = [(answer.get("value"), answer["text"]) for _, answer in answers]
    texts = [(value if isinstance(value, str) else text).strip() for value, text in values]
    question = json.dumps([spec["pattern"], "search" if spec["search"] else "fullmatch", texts])
    command = [sys.executable, "-I", "-c", MATCH]
    try:
        done = subprocess.run(command, input=question, capture_output=True, text=True, timeout=REGEX_S)
    except subprocess.TimeoutExpired:
        raise Skipped(f"the pattern {spec['pattern']!r:.60} takes longer than {REGEX_S} s") from None
    _require(done.returncode == 0, f"the pattern {spec['pattern']!r:.60} cannot be used")
    return [float(found) for found in json.loads(done.stdout)]


def _each(judge: Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], float | None]) -> _Judge:
    return lambda spec, answers: [judge(spec, case, answer) for case, answer in answers]


MATCH = (
    "import json, re, sys; p, how, ts = json.load(sys.stdin); print([int(bool(getattr(re, how)(p, t))) for t in ts])"
)
REGEX_S = 30
_Answers = Sequence[tuple[dict[str, Any], dict[str, Any]]]
_Judge = Callable[[dict[str, Any], _Answers], Sequence[float | None]]
RESCORED: dict[str, _Judge] = {
    "answer_key": _each(_answer_key),
    "choice": _each(_choice),
    "exact": _each(_exact),
    "number": _each(_numeric),
    "regex": _regex,
}


# --- the decision: every look, from the pairs -------------------------------------------------------------


@dataclass(frozen=True)
class _Look:
    """What a test sees after ``n`` pairs: ``statistic`` promotes from ``boundary`` on."""

    n: int
    wins: int
    losses: int
    statistic: float
    boundary: float | None
    power: float


def _check_decision(receipt: _Receipt) -> str:
    """The looks are the registered ones, each is as told, and the decision is that of the first that decides."""
    registered, claim, differences = receipt.registration, receipt.claim, receipt.differences
    size, level = registered["size"], Fraction(_share(registered["level"]))
    looks = sorted({math.ceil(Fraction(size * percent, 100)) for percent in LOOKS_PERCENT})
    _require(_same(registered["looks"], looks), f"the looks are {registered['looks']!r:.80}, not those of {size} cases")
    _require(len(differences) in looks and len(differences) == claim["n"], "it did not end at a look")
    if registered["test"] == "sign":
        _require(_same(registered["margin"], 0), "a sign test has no margin")
        _require(all(d in (-1, 0, 1) for d in differences), "a sign test takes pass and fail alone")
        found = _sign_test(differences, looks, level)
    else:
        _require(registered["test"] == "e-process", "the test is neither a sign test nor an e-process")
        found = _e_process(differences, looks, level, registered["margin"])
    told = claim["looked"]
    _require([look["n"] for look in told] == [look.n for look in found], "looks are missing or added")
    for look, line in zip(found, told, strict=True):
        decision = "promote" if look.boundary is not None and look.statistic >= look.boundary else "continue"
        if decision == "continue" and (look.n == size or look.power < FUTILE):
            decision = "stop"
        power = {"promote": 1.0, "continue": look.power, "stop": 0.0 if look.n == size else look.power}[decision]
        mean = math.fsum(differences[: look.n]) / look.n
        counts = (line["wins"], line["losses"], line["decision"]) == (look.wins, look.losses, decision)
        _require(counts, f"the look after {look.n} cases: {look.wins} wins, {look.losses} losses, so {decision}")
        for name, value in (("statistic", look.statistic), ("boundary", look.boundary), ("mean_difference", mean)):
            _require(_near(line[name], value), f"the look after {look.n} cases: the {name} is {value}")
        _require(_near(line["conditional_power"], power), f"the look after {look.n} cases: the chance left is {power}")
        _require((decision == "continue") == (look is not found[-1]), "it went on after a decision, or ended without")
    outcome = "promoted" if decision == "promote" else "not promoted"
    _require(claim["decision"] == outcome, f"the pairs lead to {outcome!r}")
    return f"{outcome} after {claim['n']} of {size} cases, recomputed look by look"


def _near(told: Any, found: float | None) -> bool:
    if found is None or told is None:
        return found is told
    return _is_number(told) and math.isclose(told, found, rel_tol=1e-9, abs_tol=1e-9)


def _tally(differences: Sequence[float]) -> tuple[int, int]:
    return sum(d > 0 for d in differences), sum(d < 0 for d in differences)


def _sign_test(differences: Sequence[int], looks: Sequence[int], level: Fraction) -> list[_Look]:
    """The exact sign test, group-sequential, conditional on the cases on which the arms differ.

    ``paths[w]`` counts the fair games with w wins that were not promoted before.  At each look the critical number of
    wins is the smallest beyond which lie, of all 2^d games, no more than the spending function still grants.
    """
    size, paths, promoted, before = looks[-1], [1], 0, 0
    found = []
    for n in looks:
        if n > len(differences):
            break
        wins, losses = _tally(differences[:n])
        d = wins + losses
        for _ in range(d - before):
            paths = [a + b for a, b in zip([*paths, 0], [0, *paths], strict=True)]
        promoted, before = promoted << (d - before), d
        room = math.floor(_spending(Fraction(n, size), level) * 2**d) - promoted
        critical = len(paths)
        while paths[critical - 1] <= room:
            critical -= 1
            room -= paths[critical]
            promoted += paths[critical]
        boundary = float(critical) if critical < len(paths) else None
        paths = paths[:critical]
        found.append(_Look(n, wins, losses, float(wins), boundary, _sign_power(wins, losses, n, size, level)))
    return found


def _spending(share: Fraction, level: Fraction) -> Fraction:
    """2 (1 - Phi(z / sqrt(share))), z the upper level/2 quantile, rounded down to 9 significant digits."""
    if share == 1:
        return level
    z = -NormalDist().inv_cdf(float(level) / 2)
    spent = Decimal(math.erfc(z / math.sqrt(2 * share)))
    return min(level, Fraction(Context(prec=9, rounding=ROUND_DOWN).create_decimal(spent)))


def _outlook(differences: Sequence[float], margin: float) -> tuple[float, float, float]:
    """An optimistic belief about the differences to come: mean, mean square and variance."""
    n = len(differences)
    mean = math.fsum(differences) / n
    square = (math.fsum(d * d for d in differences) + 1) / (n + 1)
    drift = min(1.0, max(margin, mean + 2 * math.sqrt(max(0.0, square - mean**2) / n)))
    square = min(1.0, max(square, abs(drift)))
    return drift, square, max(0.0, square - drift**2)


def _chance(needed: float, steps: int, mean: float, variance: float) -> float:
    """The chance that so many steps of this mean and variance sum to what is needed, by the normal distribution."""
    ahead, spread = steps * mean - needed, math.sqrt(steps * variance)
    return NormalDist().cdf(ahead / spread) if spread else float(ahead >= 0)


def _sign_power(wins: int, losses: int, n: int, size: int, level: Fraction) -> float:
    drift, square, variance = _outlook([1.0] * wins + [-1.0] * losses + [0.0] * (n - wins - losses), 0.0)
    total = wins + losses + round((size - n) * square)
    room, fewest, count = math.floor(level * 2**total), total + 1, 1
    while count <= room:  # count: games of that many pairs with exactly fewest - 1 wins
        room, fewest = room - count, fewest - 1
        count = count * fewest // (total - fewest + 1)
    if fewest > total:
        return 0.0
    return _chance(2 * fewest - total - (wins - losses) - 1, size - n, drift, variance)


def _e_process(differences: Sequence[float], looks: Sequence[int], level: Fraction, margin: float) -> list[_Look]:
    """Bets on every difference: the mean money over six stakes, which reaches 1/level with probability <= level."""
    _require(-1 < margin < 1, f"the margin {margin!r:.40} is outside (-1, 1)")
    _require(all(-1 <= d <= 1 for d in differences), "a difference is outside [-1, 1]")
    stakes = [stake / (1 + margin) for stake in STAKES]
    found = []
    for n in looks:
        if n > len(differences):
            break
        seen = differences[:n]
        logs = [math.fsum(math.log1p(stake * (d - margin)) for d in seen) for stake in stakes]
        most = max(logs)
        evidence = most + math.log(math.fsum(math.exp(log - most) for log in logs) / len(logs))
        drift, _, variance = _outlook(seen, margin)
        gain, target = drift - margin, -math.log(level)
        chances = (
            _chance(target - log, looks[-1] - n, s * gain - s * s * (variance + gain * gain) / 2, s * s * variance)
            for s, log in zip(stakes, logs, strict=True)
        )
        wins, losses = _tally(seen)
        found.append(_Look(n, wins, losses, math.exp(min(evidence, 690.0)), float(1 / level), max(chances)))
    return found


# --- the numbers to quote ---------------------------------------------------------------------------------


def _check_interval(receipt: _Receipt) -> str:
    """Means of both arms, and the bounds on their difference that hold wherever the test stopped."""
    claim, registered, differences = receipt.claim, receipt.registration, receipt.differences
    told, n, size = claim["difference"], len(receipt.pairs), registered["size"]
    for name, arm in (("before", "champion"), ("after", "challenger")):
        mean = math.fsum(pair[arm] for pair in receipt.pairs) / n
        _require(_near(claim[name], mean), f"the mean {name} is {mean:.6g}, not {claim[name]!r:.40}")
    _require(_near(told["mean"], math.fsum(differences) / n) and told["n"] == n, "the mean difference is another")
    level = Fraction(_share(registered["level"]))
    _require(_near(told["confidence"], float(1 - level)), "the confidence is not that of the level")
    low = _bet_bound(differences, level, size)
    high = -_bet_bound([-d for d in differences], level, size)
    if claim["decision"] == "promoted":
        low = max(low, registered["margin"])  # the test itself has rejected every mean up to the margin
    _require(_near(told["low"], low), f"the lower bound is {low:.6g}, not {told['low']!r:.40}")
    _require(_near(told["high"], high), f"the upper bound is {high:.6g}, not {told['high']!r:.40}")
    return f"a gain of {low:+.4f} or more; {high:+.4f} or less; each with {float(1 - level):.2%} confidence"


def _bet_bound(differences: Sequence[float], miss: Fraction, size: int) -> float:
    """The largest mean that betting against it has rejected at some time (Waudby-Smith & Ramdas 2024, section 4)."""
    goal, values = 1 / float(miss), [(d + 1) / 2 for d in differences]
    stakes, total, squares = [], 0.5, 0.25
    for i, value in enumerate(values, 1):
        stakes.append(math.sqrt(2 * math.log(goal) / (squares / i * (i + 0.3 * size) / 1.3)))
        total += value
        squares += (value - total / (i + 1)) ** 2
    low, high = 0.0, 1.0
    for _ in range(40):
        mean, money, most = (low + high) / 2, 1.0, 1.0
        for value, stake in zip(values, stakes, strict=True):
            money *= 1 + min(stake, 0.75 / mean) * (value - mean)
            most = max(most, money)
        low, high = (mean, high) if most >= goal else (low, mean)
    return 2 * low - 1


def _no_replay(_: Path) -> str:
    raise Skipped("leading the stored calls to the stored answers needs the package; run: gainful verify")


CHECKS: dict[str, Callable[[_Receipt], str]] = {
    "claim": _check_claim,
    "policies": _check_policies,
    "ledger": _check_ledger,
    "level": _check_level,
    "order": _check_order,
    "calls": _check_calls,
    "scores": _check_scores,
    "decision": _check_decision,
    "interval": _check_interval,
}


# --- the command ------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify the receipt named on the command line, print every finding, and return the exit code."""
    parser = argparse.ArgumentParser(prog="verify.py", description="Check a receipt, offline and alone.")
    parser.add_argument("folder", help="the receipt")
    parser.add_argument("--key", help="the id of the key it must be signed with")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(arguments)
    try:
        report = verify(options.folder, options.key)
    except Unreadable as error:
        print(f"unreadable: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(asdict(report) | {"holds": report.holds}, indent=2))
    else:
        for finding in report.findings:
            print(f"{finding.verdict:8}{finding.name:12}{finding.detail}")
        print(f"{'holds' if report.holds else 'DOES NOT HOLD'}: {report.decision}; signed with key {report.key_id}")
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())

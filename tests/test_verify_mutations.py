"""A receipt that holds is changed in every way we could think of; each change must be caught."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from receipts import KEY, receipt

from gainful.core import canonical, digest
from gainful.gate import SignTest
from gainful.loop import verify
from gainful.loop.receipt import key_id, pre_authentication

OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PINNED = key_id(KEY.public_key().public_bytes_raw())


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return receipt(tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "receipt"))


def read(folder: Path, name: str) -> Any:
    """Return a file's value: a list of lines for ``.jsonl``."""
    text = (folder / name).read_text()
    return [json.loads(line) for line in text.splitlines()] if name.endswith("l") else json.loads(text)


def write(folder: Path, name: str, value: Any) -> None:
    lines = [canonical(line) + b"\n" for line in value] if name.endswith("l") else [canonical(value)]
    (folder / name).write_bytes(b"".join(lines))


def state_again(folder: Path, key: Ed25519PrivateKey | None = None) -> None:
    """Bring the statement's digests up to date; sign it anew with *key*, else leave the old signature."""
    envelope = read(folder, verify.STATEMENT)
    statement = json.loads(base64.b64decode(envelope["payload"]))
    for subject in statement["subject"]:
        subject["digest"]["sha256"] = hashlib.sha256((folder / subject["name"]).read_bytes()).hexdigest()
    if key:
        public = key.public_key().public_bytes_raw()
        statement["predicate"] = {"public_key": public.hex(), "key_id": key_id(public)}
    payload = canonical(statement)
    envelope["payload"] = base64.b64encode(payload).decode()
    if key:
        signature = key.sign(pre_authentication(envelope["payloadType"], payload))
        envelope["signatures"] = [{"keyid": key_id(public), "sig": base64.b64encode(signature).decode()}]
    write(folder, verify.STATEMENT, envelope)


def outcome(folder: Path, key: str | None = None) -> str:
    """Return "holds", "unreadable", or the names of the findings that failed."""
    try:
        report = verify.verify(folder, key)
    except verify.Unreadable:
        return "unreadable"
    return " ".join(f.name for f in report.findings if f.verdict == "failed") or "holds"


def test_the_receipt_holds_before_it_is_changed(folder: Path) -> None:
    assert outcome(folder, PINNED) == "holds"


# --- changes by somebody without the key -----------------------------------------------------------------


def flips(data: bytes, step: int) -> Iterator[bytes]:
    for position in range(0, len(data), step):
        yield data[:position] + bytes([data[position] ^ (1 << position % 8)]) + data[position + 1 :]


@pytest.mark.parametrize("name", [*verify.FILES, verify.STATEMENT])
def test_a_flipped_bit_is_caught_in_any_file(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    for changed in flips(data, step=max(1, len(data) // 40)):
        (folder / name).write_bytes(changed)

        assert outcome(folder) != "holds"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*verify.FILES, verify.STATEMENT])
def test_a_flipped_bit_is_caught_at_any_byte_of_a_small_file(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    for changed in flips(data, step=1 if len(data) < 3000 else 7):
        (folder / name).write_bytes(changed)

        assert outcome(folder) != "holds"


@pytest.mark.parametrize("name", [*verify.FILES, verify.STATEMENT])
def test_a_missing_shortened_or_lengthened_file_is_caught(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    for changed in (b"", data[:-1], data + b"\n", data + b" ", b" " + data, data * 2):
        (folder / name).write_bytes(changed)
        assert outcome(folder) != "holds"
    (folder / name).unlink()
    assert outcome(folder) != "holds"


def test_an_added_file_is_caught(folder: Path) -> None:
    (folder / "policies" / "note.txt").write_text("hello")

    assert outcome(folder) == "integrity"


@pytest.mark.parametrize("name", ["pairs.jsonl", "ledger.jsonl", "claim.json"])
def test_digests_made_anew_without_the_key_are_caught(folder: Path, name: str) -> None:
    value = read(folder, name)
    write(folder, name, value[:-1] if isinstance(value, list) else value | {"after": 0.9})
    state_again(folder)

    assert outcome(folder).split()[0] == "signature"


def test_a_receipt_signed_by_another_is_caught_by_a_pinned_key_alone(folder: Path) -> None:
    state_again(folder, OTHER_KEY)

    assert outcome(folder) == "holds"
    assert outcome(folder, PINNED) == "signature"


def test_a_statement_that_names_another_file_too_is_caught(folder: Path) -> None:
    envelope = read(folder, verify.STATEMENT)
    statement = json.loads(base64.b64decode(envelope["payload"]))
    statement["subject"].append({"name": "../../etc/passwd", "digest": {"sha256": "0" * 64}})
    payload = canonical(statement)
    signature = KEY.sign(pre_authentication(envelope["payloadType"], payload))
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    write(folder, verify.STATEMENT, envelope)

    assert outcome(folder) == "integrity"


# --- changes by a signer who lies about one thing ---------------------------------------------------------


def chained(lines: list[Any]) -> list[Any]:
    """Number and hash the ledger anew."""
    previous = "0" * 64
    for seq, line in enumerate(lines):
        line |= {"seq": seq, "previous": previous}
        line["hash"] = previous = digest({name: line[name] for name in ("key", "seq", "kind", "content", "previous")})
    return lines


def moved(lines: list[Any], first: int, second: int) -> list[Any]:
    lines[first], lines[second] = lines[second], lines[first]
    return lines


def swap_arms(line: Any) -> Any:
    line["champion"], line["challenger"] = line["challenger"], line["champion"]
    return line


def put(at: str, value: Any) -> Callable[[Any], Any]:
    """Return the change of one member: ``put("0/content/n", 3)``."""

    def change(document: Any) -> Any:
        *path, last = [int(part) if part.isdigit() else part for part in at.split("/")]
        inner = document
        for part in path:
            inner = inner[part]
        assert inner[last] != value
        inner[last] = value
        return document

    return change


LIES: list[tuple[str, str, Callable[[Any], Any], str]] = [
    ("a pair is dropped", "pairs.jsonl", lambda v: v[1:], "order"),
    ("the last pair is dropped", "pairs.jsonl", lambda v: v[:-1], "order"),
    ("a pair is doubled", "pairs.jsonl", lambda v: [v[0], *v], "order"),
    ("two pairs change places", "pairs.jsonl", lambda v: moved(v, 0, 3), "order"),
    ("a score is raised", "pairs.jsonl", put("1/challenger", 0.5), "scores"),
    ("a pair's arms change places", "pairs.jsonl", lambda v: [swap_arms(v[0]), *v[1:]], "scores"),
    ("two pairs exchange their targets", "pairs.jsonl", lambda v: [put("target", "City 1 B")(v[0]), *v[1:]], "order"),
    ("an output's arms change places", "outputs.jsonl", lambda v: [swap_arms(v[1]), *v[2:], v[0]], "order"),
    ("an output's arms change places in place", "outputs.jsonl", lambda v: [swap_arms(v[0]), *v[1:]], "scores"),
    ("an answer is changed", "outputs.jsonl", put("0/challenger/answer/value", "City 99"), "scores"),
    ("an answer's words are changed", "outputs.jsonl", put("0/challenger/answer/text", "else"), "scores"),
    ("a verdict is changed", "outputs.jsonl", put("0/challenger/verdicts/0/score", 0.5), "scores"),
    ("a verdict is dropped", "outputs.jsonl", put("0/challenger/verdicts", []), "scores"),
    ("an answer's calls are dropped", "outputs.jsonl", put("0/challenger/calls", []), "calls"),
    ("a call is dropped", "calls.jsonl", lambda v: v[1:], "calls"),
    ("a call is doubled", "calls.jsonl", lambda v: [*v, v[0]], "calls"),
    ("a case's words are changed", "cases.jsonl", put("0/messages/0/content", "else"), "order"),
    ("a case's target is changed", "cases.jsonl", put("0/target", "else"), "order"),
    ("a case is dropped", "cases.jsonl", lambda v: v[:-1], "order"),
    ("two cases change places", "cases.jsonl", lambda v: moved(v, 0, 1), "order"),
    ("an unused case is hidden", "holdout.json", lambda v: v | {"cases": v["cases"][:-1]}, "order"),
    ("a target of the hold-out is changed", "holdout.json", put("cases/0/1", "0" * 64), "order"),
    ("the hold-out is renamed", "holdout.json", put("population", "other"), "order"),
    ("the champion is another", "policies/champion.json", put("instructions", "Else."), "policies"),
    ("the challenger is another", "policies/challenger.json", put("max_tokens", 17), "policies"),
    ("the difference is belittled", "diff.json", lambda v: v[1:], "policies"),
    ("the model is another", "environment.json", put("model/name", "other"), "claim"),
    ("the level is raised in the claim", "claim.json", put("level", "0.05"), "claim"),
    ("the margin is lowered", "claim.json", put("margin", -0.1), "claim"),
    ("the size is raised", "claim.json", put("size", 240), "claim"),
    ("a look is hidden", "claim.json", lambda v: v | {"looked": v["looked"][1:]}, "decision"),
    ("a look is embellished", "claim.json", put("looked/0/wins", 7), "decision"),
    ("a boundary is lowered", "claim.json", put("looked/3/boundary", 5), "decision"),
    ("a look's chance is changed", "claim.json", put("looked/0/conditional_power", 0.5), "decision"),
    ("the decision is reversed", "claim.json", put("decision", "not promoted"), "ledger decision"),
    ("the number of cases is changed", "claim.json", put("n", 12), "ledger"),
    ("the mean before is lowered", "claim.json", put("before", 0), "interval"),
    ("the mean after is raised", "claim.json", put("after", 0.9), "interval"),
    ("the lower bound is raised", "claim.json", put("difference/low", 0.5), "interval"),
    ("the upper bound is raised", "claim.json", put("difference/high", 0.9), "interval"),
    ("the confidence is raised", "claim.json", put("difference/confidence", 0.999), "interval"),
    ("what is not claimed is left out", "claim.json", put("not_claimed", []), "claim"),
    ("the registration is changed afterwards", "registration.json", put("seed", 1), "ledger"),
    ("another model is registered afterwards", "registration.json", put("model/name", "other"), "claim"),
    ("a ledger line is dropped", "ledger.jsonl", lambda v: [*v[:1], *v[2:]], "ledger"),
    ("the last ledger line is dropped", "ledger.jsonl", lambda v: v[:-1], "ledger"),
    ("a ledger line is doubled", "ledger.jsonl", lambda v: [*v[:2], *v[1:]], "ledger"),
    ("two ledger lines change places", "ledger.jsonl", lambda v: moved(v, 1, 2), "ledger"),
    ("a ledger line is changed", "ledger.jsonl", put("2/content/n", 4), "ledger"),
    ("a failure is dropped, the chain made anew", "ledger.jsonl", lambda v: chained([v[0], *v[3:]]), "level"),
    ("an abortion is dropped, the chain made anew", "ledger.jsonl", lambda v: chained([*v[:3], *v[4:]]), "level"),
    (
        "a failure is called a promotion",
        "ledger.jsonl",
        lambda v: chained(put("2/content/decision", "promoted")(v)),
        "level",
    ),
    (
        "the level is raised, the chain made anew",
        "ledger.jsonl",
        lambda v: chained(put("4/content/level", "0.05")(v)),
        "level",
    ),
    (
        "the rank is lowered, the chain made anew",
        "ledger.jsonl",
        lambda v: chained(put("4/content/rank", 1)(v)),
        "level",
    ),
    (
        "alpha is raised, the chain made anew",
        "ledger.jsonl",
        lambda v: chained(put("0/content/alpha", "0.5")(v)),
        "level",
    ),
    (
        "the ledger is another hold-out's",
        "ledger.jsonl",
        lambda v: chained(put("0/content/holdout", "0" * 64)(v)),
        "level",
    ),
    ("the hold-out grew", "ledger.jsonl", lambda v: chained(put("0/content/size", 25)(v)), "level"),
    (
        "a failure closes another",
        "ledger.jsonl",
        lambda v: chained(put("2/content/registration", "0" * 64)(v)),
        "level",
    ),
    ("no hold-out comes into use", "ledger.jsonl", lambda v: chained(put("0/kind", "begun")(v)), "level"),
    ("the claim is of another format", "claim.json", put("format", "urn:gainful:receipt:v2"), "claim"),
    ("the mean difference is raised", "claim.json", put("difference/mean", 0.9), "interval"),
    ("the bound is said of more cases", "claim.json", put("difference/n", 24), "interval"),
    ("it went on after a decision", "claim.json", put("looked/7/decision", "continue"), "decision"),
    ("a look is added", "claim.json", lambda v: v | {"looked": [*v["looked"], v["looked"][-1]]}, "decision"),
    ("it was closed twice", "ledger.jsonl", lambda v: chained([*v, copy.deepcopy(v[-1])]), "ledger"),
    ("it was closed otherwise", "ledger.jsonl", lambda v: chained(put("5/content/n", 3)(v)), "ledger"),
    ("it was opened after it was closed", "ledger.jsonl", lambda v: chained(moved(v, 4, 5)), "ledger"),
]


@pytest.mark.parametrize(("name", "change", "finding"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
def test_a_signer_who_lies_about_one_thing_is_caught(
    folder: Path, name: str, change: Callable[[Any], Any], finding: str
) -> None:
    write(folder, name, change(read(folder, name)))
    state_again(folder, KEY)

    assert finding.split()[0] in outcome(folder, PINNED).split()


def reregister(folder: Path, **members: Any) -> None:
    """Change the registration, and all that follows from it: the claim, the ledger, the signature."""
    registration, claim, ledger = (read(folder, f) for f in ("registration.json", "claim.json", "ledger.jsonl"))
    registration |= members
    for line in ledger[-2:]:
        line["content"] |= {"registration": digest(registration)}
    write(folder, "registration.json", registration)
    write(folder, "claim.json", claim | {name: value for name, value in members.items() if name in claim})
    write(folder, "ledger.jsonl", chained(ledger))
    state_again(folder, KEY)


@pytest.mark.parametrize(
    ("members", "finding"),
    [
        ({"seed": 1}, "holds"),  # the signer's to say: only a new run can tell
        ({"population": "other"}, "order"),
        ({"holdout": "0" * 64}, "order"),
        ({"holdout_size": 25}, "level"),
        ({"holdout_size": None}, "level"),
        ({"size": 25}, "order"),
        ({"order": "0" * 64}, "order"),
        ({"champion": "0" * 64}, "policies"),
        ({"challenger": "0" * 64}, "policies"),
        ({"looks": [2, 17, 24]}, "decision"),
        ({"margin": -0.1}, "decision"),
        ({"test": "e-process"}, "decision"),
        ({"test": "vote"}, "decision"),
        ({"level": "0.05"}, "level"),
        ({"base": "0.5"}, "level"),
        ({"rank": 1}, "level"),
        ({"checks": [{"kind": "regex", "pattern": "City 1.*", "search": False}]}, "scores"),
        ({"checks": [{"kind": "regex", "pattern": "(", "search": False}]}, "scores"),
        ({"checks": []}, "scores"),
        ({"model": {"name": "other"}}, "claim"),
    ],
)
def test_a_signer_who_registers_afterwards_is_caught(folder: Path, members: dict[str, Any], finding: str) -> None:
    reregister(folder, **members)

    assert finding in outcome(folder, PINNED).split()


@pytest.mark.parametrize("text", ["5", "0", "-0.1", "NaN", "1e-9999", "0.0_5", "٠.٥", "", "0x1"])
def test_a_level_that_is_none_is_caught(folder: Path, text: str) -> None:
    ledger = read(folder, "ledger.jsonl")
    ledger[0]["content"]["alpha"] = text
    write(folder, "ledger.jsonl", chained(ledger))
    state_again(folder, KEY)

    assert outcome(folder) in ("level", "unreadable")


def test_a_target_chosen_afterwards_is_caught(folder: Path) -> None:
    """Case and pair agree, and the check agrees with them; only the hold-out's digest knows better."""
    cases, pairs = read(folder, "cases.jsonl"), read(folder, "pairs.jsonl")
    cases[0]["target"] = pairs[0]["target"] = [cases[0]["target"], "no"]
    write(folder, "cases.jsonl", cases)
    write(folder, "pairs.jsonl", pairs)
    state_again(folder, KEY)

    assert outcome(folder) == "order"


def test_base64_in_another_spelling_is_caught(folder: Path) -> None:
    """The last digit of the signature's base64 has bits that decode to nothing."""
    envelope = read(folder, verify.STATEMENT)
    signature = envelope["signatures"][0]["sig"]
    for digit in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/":
        envelope["signatures"][0]["sig"] = signature[:-3] + digit + "=="
        write(folder, verify.STATEMENT, envelope)

        assert (outcome(folder) == "holds") == (envelope["signatures"][0]["sig"] == signature)


@pytest.mark.parametrize(("outcomes", "decided"), [([-1] * 20, 1), ([1] * 20, 12)])
def test_going_on_after_a_decision_is_caught(outcomes: list[int], decided: int) -> None:
    """Twenty losses stop, or twenty wins promote, long before the end; whoever looks again looks for luck."""
    test = SignTest(20, 0.0127163392268)
    found = verify._sign_test(outcomes, test.looks, Fraction("0.0127163392268"))
    told = []
    for look in found:
        decision = "continue" if look.n < decided else "promote" if outcomes[0] > 0 else "stop"
        chance = {"promote": 1.0, "stop": 0.0 if look.n == 20 else look.power, "continue": look.power}[decision]
        told.append(asdict(look) | {"decision": decision, "conditional_power": chance, "mean_difference": outcomes[0]})
    claim = {"decision": "promoted" if outcomes[0] > 0 else "not promoted", "n": 20, "looked": told}
    registration = {"test": "sign", "size": 20, "looks": list(test.looks), "margin": 0.0, "level": "0.0127163392268"}

    with pytest.raises(verify.Failed, match="it went on after a decision"):
        verify._check_decision(SimpleNamespace(claim=claim, registration=registration, differences=outcomes))


# --- any value anywhere ----------------------------------------------------------------------------------

ODD = (None, True, 0, 1.5, 10**30, "x", "0.05", [], {"a": 1})
WORDS = (  # for people alone: nothing can check what a signer says in them
    *("claim.json/null_hypothesis", "claim.json/reason", "claim.json/not_claimed/"),
    *(
        "environment.json/",
        "/feedback",
        "/group",
        "/trusted",
        "/verdicts/0/check",
        "/reply",
        "cases.jsonl/0/name",
        "cases.jsonl/16/name",
    ),
)


def places(value: Any, at: str = "") -> Iterator[str]:
    """Yield the path of every value inside *value*, of lists only the first and the last item's."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else [])
    for name, inner in items if isinstance(value, dict) else items[:1] + items[-1:]:
        yield f"{at}/{name}"
        yield from places(inner, f"{at}/{name}")


@pytest.mark.slow
@pytest.mark.parametrize("name", verify.FILES)
def test_any_odd_value_anywhere_is_caught_or_is_only_words(folder: Path, name: str) -> None:
    document = read(folder, name)
    missed = set()
    for place in places(document):
        for odd in ODD:
            changed = copy.deepcopy(document)
            *path, last = [int(p) if p.isdigit() else p for p in place[1:].split("/")]
            inner = changed
            for part in path:
                inner = inner[part]
            if inner[last] == odd:
                continue
            inner[last] = odd
            write(folder, name, changed)
            state_again(folder, KEY)
            if outcome(folder) == "holds":
                missed.add(f"{name}{place}")

    assert not {place for place in missed if not any(word in place for word in WORDS)}

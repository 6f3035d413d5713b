"""A receipt is written whole or not at all, the same confirmation gives the same bytes, and the key stays private."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from receipts import CASES, CHALLENGER, CHAMPION, KEY, confirmation, mostly_wrong, receipt, right

from gainful.checks.choice import Choice
from gainful.checks.exact import Exact
from gainful.checks.number import Number
from gainful.checks.regex import Regex
from gainful.core import Answer, Case, Demo, Format, JsonObject, Policy, ReceiptError, Score, digest
from gainful.loop import verify
from gainful.loop.order import evaluation_order, order_seed
from gainful.loop.receipt import holdout_index, policy_diff, user_key, write_receipt
from gainful.tasks import Holdout


def verdicts(folder: Path) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in verify.verify(folder).findings}


def test_a_promotion_holds(tmp_path: Path) -> None:
    report = verify.verify(receipt(tmp_path))

    assert report.holds
    assert report.decision == "promoted"
    assert {f.name for f in report.findings if f.verdict == "skipped"} == {"replay"}


def test_a_confirmation_that_failed_holds_too(tmp_path: Path) -> None:
    report = verify.verify(receipt(tmp_path, before=right, after=mostly_wrong))

    assert report.holds
    assert report.decision == "not promoted"


def test_a_hopeless_confirmation_discloses_only_the_cases_it_used(tmp_path: Path) -> None:
    folder = receipt(tmp_path, before=right, after=mostly_wrong)

    used = (folder / "cases.jsonl").read_bytes().count(b"\n")
    assert 0 < used < len(CASES)
    assert len(json.loads((folder / "holdout.json").read_bytes())["cases"]) == len(CASES)


class Half:
    """A user's own check, with graded scores."""

    name, trusted, needs_target = "half", True, True

    @property
    def spec(self) -> JsonObject:
        return {"kind": "function", "name": self.name}

    def __call__(self, case: Case, answer: Answer) -> Score:
        return Score(1.0 if answer.value == case.target else 0.4)


def test_a_graded_promotion_holds_and_a_users_check_is_named_and_skipped(tmp_path: Path) -> None:
    cases = [Case(messages=({"role": "user", "content": str(n)},), target=f"{n}", name=str(n)) for n in range(90)]

    report = verify.verify(receipt(tmp_path, checks=(Half(),), cases=cases, graded=True))

    assert report.holds
    assert report.decision == "promoted"
    (scores,) = (finding for finding in report.findings if finding.name == "scores")
    assert scores == verify.Finding(
        "scores", "skipped", "this file cannot score function again; every other verdict is as stored"
    )


@pytest.mark.parametrize(
    "check", [Exact(ignore_case=True), Regex("City [0-9]+"), Choice(tuple(c.target for c in CASES))]
)
def test_built_in_checks_are_scored_again(tmp_path: Path, check: Any) -> None:
    assert verdicts(receipt(tmp_path, checks=(check,)))["scores"] == "ok"


def test_several_checks_give_the_lowest_score(tmp_path: Path) -> None:
    cases = [Case(messages=({"role": "user", "content": str(n)},), target=n, name=str(n)) for n in range(24)]
    checks = (Number(0.5), Regex("It is [0-9]+\\."))

    assert verdicts(receipt(tmp_path, checks=checks, cases=cases))["scores"] == "ok"


def test_every_line_is_canonical_json(tmp_path: Path) -> None:
    """RFC 8785, by another implementation."""
    folder = receipt(tmp_path)

    for name in (*verify.FILES, verify.STATEMENT):
        lines = (folder / name).read_bytes().splitlines() if name.endswith("l") else [(folder / name).read_bytes()]
        assert [rfc8785.dumps(json.loads(line)) for line in lines] == lines


def test_identities_are_digests_of_files(tmp_path: Path) -> None:
    made = confirmation(tmp_path)
    folder = write_receipt(tmp_path / "r", made, KEY)

    def sha256(name: str) -> str:
        return digest(json.loads((folder / name).read_bytes()))

    assert sha256("policies/champion.json") == CHAMPION.id
    assert sha256("policies/challenger.json") == CHALLENGER.id
    assert sha256("registration.json") == made.registration.hash
    assert sha256("holdout.json") == made.registration.holdout


# --- whole or not at all ---------------------------------------------------------------------------------


def test_writing_the_same_receipt_again_changes_nothing(tmp_path: Path) -> None:
    made = confirmation(tmp_path)
    folder = write_receipt(tmp_path / "r", made, KEY)
    before = {path: path.read_bytes() for path in folder.rglob("*.json*")}

    assert write_receipt(folder, made, KEY) == folder
    assert {path: path.read_bytes() for path in folder.rglob("*.json*")} == before
    assert not folder.with_name("r.partial").exists()


def test_what_a_killed_writer_left_behind_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "r.partial").mkdir()
    (tmp_path / "r.partial" / "claim.json").write_text("half of i")

    assert verify.verify(write_receipt(tmp_path / "r", confirmation(tmp_path), KEY)).holds


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "thesis.txt").write_text("precious")

    with pytest.raises(ReceiptError, match="exists and is not this receipt"):
        write_receipt(tmp_path / "r", confirmation(tmp_path), KEY)
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["thesis.txt"]


def test_a_failing_writer_leaves_nothing_behind(tmp_path: Path) -> None:
    made = confirmation(tmp_path)
    (tmp_path / "r").write_text("a file")

    with pytest.raises(ReceiptError):
        write_receipt(tmp_path / "r", made, KEY)
    assert not (tmp_path / "r.partial").exists()


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"champion": CHALLENGER}, "champion's id"),
        ({"challenger": CHAMPION}, "challenger's id"),
        ({"before": ()}, "case by case in evaluation order"),
        ({"holdout": ()}, "was not opened"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path, part: dict[str, Any], words: str) -> None:
    made = dataclasses.replace(confirmation(tmp_path), **part)

    with pytest.raises(ReceiptError, match=words):
        write_receipt(tmp_path / "r", made, KEY)
    assert not (tmp_path / "r").exists()


def test_a_score_that_no_check_could_give_speaks_against_the_challenger(tmp_path: Path) -> None:
    cases = [*CASES[:20], *(msgspec.structs.replace(case, target=None) for case in CASES[20:])]
    folder = receipt(tmp_path, before=lambda _: "no", after=lambda case: f"City {case.name}", cases=cases)

    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_bytes().splitlines()]
    assert {(pair["champion"], pair["challenger"]) for pair in pairs if pair["target"] is None} == {(1, 0)}
    assert verify.verify(folder).holds


# --- the small parts -------------------------------------------------------------------------------------


def test_the_holdout_file_has_the_holdouts_digest() -> None:
    assert digest(holdout_index("capitals", CASES)) == Holdout("capitals", CASES).digest


def test_the_order_is_a_permutation_that_depends_on_all_three() -> None:
    ids = [case.id for case in CASES]
    orders = [evaluation_order(ids, order_seed(*three)) for three in ("abc", "bac", "abd", "xbc")]

    assert all(sorted(order) == sorted(ids) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert evaluation_order(reversed(ids), order_seed(*"abc")) == orders[0]


def test_the_difference_of_policies_goes_into_objects_but_not_into_lists() -> None:
    demo = Demo(case=Case(messages=({"role": "user", "content": "1"},)), value={"a/b": 1})
    before = Policy(format=Format(shape="schema", think=True), demos=(demo,))
    after = Policy(format=Format(shape="arguments"), demos=(demo, demo))

    found = {line["at"]: set(line) - {"at"} for line in policy_diff(before, after)}

    both = {"champion", "challenger"}
    assert found == {"/demos": both, "/format/shape": both, "/format/think": {"champion"}}


# --- the key ---------------------------------------------------------------------------------------------


def test_a_key_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key.pem"

    made, again = user_key(path), user_key(path)

    assert made.private_bytes_raw() == again.private_bytes_raw()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["key.pem"]


def test_two_first_users_share_the_key_of_the_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower one finds the file only when it links its own key there."""
    path = tmp_path / "key.pem"
    faster = user_key(path)
    monkeypatch.setattr(Path, "exists", lambda _: False)

    assert user_key(path).private_bytes_raw() == faster.private_bytes_raw()


def test_a_key_others_can_read_is_refused(tmp_path: Path) -> None:
    user_key(tmp_path / "key.pem")
    os.chmod(tmp_path / "key.pem", 0o640)

    with pytest.raises(ReceiptError, match="can be read by others; run chmod 600"):
        user_key(tmp_path / "key.pem")


@pytest.mark.parametrize(
    "pem",
    [b"", b"not a key", X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())],
)
def test_a_file_that_is_no_ed25519_key_is_refused(tmp_path: Path, pem: bytes) -> None:
    (tmp_path / "key.pem").write_bytes(pem)
    os.chmod(tmp_path / "key.pem", 0o600)

    with pytest.raises(ReceiptError, match="remove it for a new one"):
        user_key(tmp_path / "key.pem")


def test_a_key_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ReceiptError, match="cannot be used"):
        user_key(tmp_path / "file" / "key.pem")


def test_receipts_of_different_keys_say_so(tmp_path: Path) -> None:
    made = confirmation(tmp_path)
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))

    ids = {verify.verify(write_receipt(tmp_path / name, made, key)).key_id for name, key in (("a", KEY), ("b", other))}
    assert len(ids) == 2

"""The nouns, the seams and the errors: what every room of Gainful shares.

A newcomer reads this file first.  It does no I/O and imports nothing of ours.

Guarantees: values are frozen; a value's identity is the digest of its content; unknown is ``None``, never
0.0.  An infrastructure error is raised, never returned: nothing here can hold one as an answer.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object: a chat message, a tool, a request body, a reply body."""


# --- identity -------------------------------------------------------------------------------------------


def canonical(value: Any) -> bytes:
    """Return *value* as canonical JSON, UTF-8 (RFC 8785, JSON Canonicalization Scheme).

    Accepts what ``msgspec.to_builtins`` accepts.  Integers beyond 2**53 are written in full: tool schemas
    carry 64-bit bounds, and rounding them would give two schemas one digest.  Raises ``ValueError`` for NaN,
    an infinity, or text that holds a lone surrogate.

    >>> canonical({"b": 1.0, "a": [True, None, "é", 1e-7]})
    b'{"a":[true,null,"\\xc3\\xa9",1e-7],"b":1}'
    """
    return _canonical(msgspec.to_builtins(value)).encode()


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical form of *value*, as 64 hexadecimal digits.

    >>> digest({"a": 1}) == digest({"a": 1.0})
    True
    """
    return hashlib.sha256(canonical(value)).hexdigest()


def _canonical(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        members = sorted(value.items(), key=lambda member: str(member[0]).encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{json.dumps(str(k), ensure_ascii=False)}:{_canonical(v)}" for k, v in members) + "}"
    return "[" + ",".join(map(_canonical, value)) + "]"


def _number(value: float) -> str:
    """Format as ECMAScript does (RFC 8785, section 3.2.2.3): shortest digits, exponent from 1e21 and below 1e-6."""
    if not math.isfinite(value):
        raise ValueError(f"JSON has no {value!r}; scores and settings must be finite numbers")
    if value == 0:
        return "0"
    negative, all_digits, exponent = Decimal(repr(value)).as_tuple()
    digits = "".join(map(str, all_digits)).rstrip("0")
    point = len(all_digits) + int(exponent)  # where the decimal point stands, counted from the first digit
    if len(digits) <= point <= 21:
        text = digits.ljust(point, "0")
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        text = f"{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return "-" + text if negative else text


# --- nouns ----------------------------------------------------------------------------------------------


class Value(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A frozen value whose JSON leaves defaults out, so that a field added later keeps every old digest.

    A default of a subclass therefore never changes once a store or a receipt may hold it.
    """


class Case(Value, frozen=True, dict=True):
    """One input: chat messages as the caller would send them, and tools if any.

    ``target`` is the answer key, where there is one; only checks read it.  ``name`` is what the owner calls
    the case (an id of theirs, or file and line), used in messages to people and in no digest.
    """

    messages: tuple[JsonObject, ...]
    tools: tuple[JsonObject, ...] = ()
    target: Any = None
    name: str = ""
    metadata: JsonObject = {}

    @cached_property
    def id(self) -> str:
        """The digest of what the model is shown: equal inputs have equal ids, whatever their targets."""
        return digest({"messages": self.messages, "tools": self.tools})

    @property
    def text(self) -> str:
        """The words of the user's turns, one per line; images and other parts are left out."""
        return "\n".join(message_text(m) for m in self.messages if m.get("role") == "user")


def message_text(message: Mapping[str, Any]) -> str:
    """Return the text of a chat message, whether its content is a string, a list of parts or absent."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content or () if part.get("type") == "text")


class Text(Value, frozen=True, tag="text"):
    """The answer is the reply's text, stripped."""


class Number(Value, frozen=True, tag="number"):
    """The answer is the last number in the reply."""


class Choice(Value, frozen=True, tag="choice"):
    """The answer is one of these labels."""

    labels: tuple[str, ...]


class Json(Value, frozen=True, tag="json"):
    """The answer is a JSON value that follows this JSON schema (draft 2020-12)."""

    schema: JsonObject


class ToolCall(Value, frozen=True, tag="tool_call"):
    """The answer is one call of one of the case's tools: ``{"name": str, "arguments": object}``."""


AnswerKind: TypeAlias = Text | Number | Choice | Json | ToolCall


class Answer(Value, frozen=True):
    """What came of one case under one policy.

    ``value`` is the extracted answer (a string, a number, JSON, a tool call), ``None`` where the reply holds
    none.  ``samples`` are the extracted answers of all samples where a strategy took several.
    """

    text: str
    value: Any = None
    samples: tuple[Any, ...] = ()


class Score(Value, frozen=True):
    """A check's opinion: ``value`` in [0, 1], 1 is right; why not, in words a re-ask can use; the group of error."""

    value: float
    feedback: str = ""
    group: str = ""


class Verdict(Value, frozen=True):
    """A score and the check that gave it; ``score`` is ``None`` where the check could not tell."""

    check: str
    trusted: bool
    score: float | None = None
    feedback: str = ""
    group: str = ""


class Usage(Value, frozen=True):
    """What was spent.  ``cost_usd`` is ``None`` where no price is known."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    elapsed_ms: float = 0.0
    cost_usd: float | None = None

    def __add__(self, other: Usage) -> Usage:
        costs = [u.cost_usd for u in (self, other) if u.cost_usd is not None]
        return Usage(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            elapsed_ms=self.elapsed_ms + other.elapsed_ms,
            cost_usd=sum(costs) if costs else None,
        )


class Attempt(Value, frozen=True):
    """One case answered under one policy: the answer, the verdicts, every model call by its memo key, the spend.

    ``score`` is the lowest of the known verdicts (all checks must pass), ``None`` where none is known.
    """

    case: str
    policy: str
    answer: Answer
    verdicts: tuple[Verdict, ...] = ()
    score: float | None = None
    calls: tuple[str, ...] = ()
    usage: Usage = Usage()

    @property
    def error(self) -> Verdict | None:
        """The first verdict below 1, which names the attempt's error group; ``None`` where all passed."""
        return next((v for v in self.verdicts if v.score is not None and v.score < 1.0), None)

    @property
    def is_verified(self) -> bool:
        """Whether a trusted check passed it and no check objects: what a judge alone passed is not verified."""
        return self.score == 1.0 and any(v.trusted and v.score == 1.0 for v in self.verdicts)

    @property
    def is_refuted(self) -> bool:
        """Whether a trusted check found it wrong, in whole or in part."""
        return any(v.trusted and v.score is not None and v.score < 1.0 for v in self.verdicts)


class Rollout(Value, frozen=True):
    """A case answered several times at random under one policy, each answer judged."""

    case: Case
    attempts: tuple[Attempt, ...]

    @property
    def verified(self) -> list[Attempt]:
        """The attempts that a trusted check passed and none objects to."""
        return [attempt for attempt in self.attempts if attempt.is_verified]

    @property
    def failed(self) -> list[Attempt]:
        """The attempts that a trusted check found wrong, in whole or in part."""
        return [attempt for attempt in self.attempts if attempt.is_refuted]

    @property
    def pass_rate(self) -> float:
        """The share of verified attempts, in [0, 1]; 0 where there are no attempts."""
        return len(self.verified) / len(self.attempts) if self.attempts else 0.0


# --- policies -------------------------------------------------------------------------------------------


class Demo(Value, frozen=True):
    """A worked example shown before the case: the user's words (and tools, as text) and the answer's value."""

    case: Case
    value: Any


class Format(Value, frozen=True):
    """How the answer is asked for.

    ``shape``: ``free``, in words; ``schema``, decoding is constrained to the answer's JSON schema; ``arguments``,
    the same for a tool call where the case has one tool, and only its arguments are generated; ``native``, tools go
    in the request's own field and the server decides.  ``think`` lets a short free text come first inside a
    constrained answer.  ``signatures`` shows tools as one-line signatures instead of JSON schemas.
    ``required_only`` leaves optional arguments out of what may be generated.  ``turns`` shows demos as earlier turns of
    the conversation, where a chat model has learned to look, and not in the system turn, where they are fenced as data.
    """

    shape: Literal["free", "schema", "arguments", "native"] = "free"
    think: bool = False
    signatures: bool = False
    required_only: bool = False
    turns: bool = False


class Once(Value, frozen=True, tag="once"):
    """Ask once, greedily."""


class Vote(Value, frozen=True, tag="vote"):
    """Sample and take the answer most samples agree on; stop as soon as the rest cannot change it."""

    samples: int = 5
    temperature: float = 0.8


class Refine(Value, frozen=True, tag="refine"):
    """Ask; when a check that needs no target objects, ask again with the check's words, ``rounds`` times at most."""

    rounds: int = 1


Strategy: TypeAlias = Once | Vote | Refine


class Adapter(Value, frozen=True):
    """Low-rank weights that are added to a model's own (LoRA: Hu et al. 2021, arXiv 2106.09685).

    ``sha256`` is that of its ``adapter_model.safetensors``; ``base`` is what the model that it belongs to is called by
    its identity, the SHA-256 of a GGUF file or the name a server serves it under; ``gguf`` is the SHA-256 of the
    ``adapter.gguf`` that llama.cpp reads, empty where there is none.  Raises ``ValueError`` for what is no digest:
    it becomes the name of a folder.
    """

    sha256: str
    base: str
    rank: int
    alpha: float
    gguf: str = ""

    def __post_init__(self) -> None:
        for name in ("sha256", "gguf"):
            value = getattr(self, name)
            if not (_is_sha256(value) or (name == "gguf" and not value)):
                raise ValueError(f"an adapter's {name} is {value!r}; it must be 64 lower-case hexadecimal digits")
        if not self.base:
            raise ValueError("an adapter's base is empty; name the model that it belongs to")
        if self.rank < 1 or not 0.0 < self.alpha < math.inf:
            raise ValueError(f"an adapter has rank {self.rank!r} and alpha {self.alpha!r}; both must be positive")

    @property
    def label(self) -> str:
        """What people are told of it.

        >>> Adapter(sha256="1a2b3c4d" * 8, base="m", rank=16, alpha=32.0).label
        'adapter 1a2b3c4d, rank 16'
        """
        return f"adapter {self.sha256[:8]}, rank {self.rank}"


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


class Policy(Value, frozen=True, dict=True):
    """How to answer.  Its name is the digest of its content."""

    instructions: str = ""
    demos: tuple[Demo, ...] = ()
    format: Format = Format()
    strategy: Strategy = Once()
    max_tokens: int = 256
    adapter: Adapter | None = None

    @cached_property
    def id(self) -> str:
        return digest(self)

    @property
    def most_calls(self) -> int:
        """The most model calls one answer takes."""
        match self.strategy:
            case Vote(samples=samples):
                return samples
            case Refine(rounds=rounds):
                return 1 + rounds
        return 1


class Trial(Value, frozen=True):
    """A draft that was suspected to be wrong, and what one method of correction made of it.

    ``before`` and ``after`` are scores in [0, 1] by trusted checks; ``extra`` is what the correction spent on top of
    the draft.  ``source`` says who scored: an answer key on cases, a trusted check on traffic, or the caller.
    ``policy`` made the draft: another one's drafts are right and wrong elsewhere.
    """

    task: str
    model: str
    method: str
    case: str
    before: float
    after: float
    extra: Usage = Usage()
    source: Literal["cases", "traffic", "feedback"] = "cases"
    policy: str = ""


Arm: TypeAlias = Literal["champion", "challenger", "former", "shadow"]
"""Who answers: the policy in service, one on its way in, the one before; ``shadow``: the challenger, unheard."""


class Seat(Value, frozen=True):
    """Where a request was put at random, before anything in it was looked at.

    ``arm`` is the policy that answered.  A worker counts the requests of one ``lane`` from 0 in ``number``; a stage
    with blocks of b requests compares those whose ``number // b`` is the same.  ``canary`` and ``holdback`` name the
    stages under way; empty where there is none.
    """

    arm: Arm
    lane: str
    number: int
    canary: str = ""
    holdback: str = ""


VerdictWord: TypeAlias = Literal["verified", "corrected", "unverified", "failed-open"]
"""What is known of a reply: a trusted check passed it; a correction replaced the draft; nothing; checking broke."""


class Exchange(Value, frozen=True):
    """One request of a caller's and the reply as the caller received it.

    ``id`` is the reply's id, ``at`` the Unix time in seconds, ``key`` the name of the caller's key.  ``request`` and
    ``reply`` are stored as far as the operator allows: in full, as ``{"sha256": ...}``, or not at all.  ``draft`` is
    the draft's extracted value where a correction replaced it.  ``p_wrong`` is ``None`` where nothing is known.
    ``correcting`` is the part of ``usage`` that corrections took, those that changed nothing too.  ``seat`` is ``None``
    where nothing is compared.  A request that got an error in place of a reply has a ``status`` of
    400 and more, and no reply.
    """

    id: str
    at: float
    task: str
    policy: str
    model: str
    verdict: VerdictWord
    status: int = 200
    key: str = ""
    request: JsonObject | None = None
    reply: JsonObject | None = None
    value: Any = None
    draft: Any = None
    verdicts: tuple[Verdict, ...] = ()
    p_wrong: float | None = None
    correction: str = ""
    usage: Usage = Usage()
    added_ms: float = 0.0
    seat: Seat | None = None
    correcting: Usage = Usage()


class Proposal(Value, frozen=True):
    """A policy some learner suggests, and what it changes, in a few words for people."""

    policy: Policy
    learner: str
    change: str


class Evidence(Value, frozen=True):
    """All a learner may look at: dev cases, how the answer looks, and the attempts of the policy it starts from.

    ``practice`` are further cases, on which nothing is raced: what is learned by heart there wins nothing.  Others,
    ``left_out``, are not among them because they nearly repeat a case that is raced or held out.  ``repairs`` are cases
    that were once answered wrongly, with the model's own answers that a trusted check passed afterwards.  There is no
    held-out case in here and no way from here to one.
    """

    kind: AnswerKind
    cases: tuple[Case, ...]
    attempts: tuple[Attempt, ...]
    seed: int = 0
    practice: tuple[Case, ...] = ()
    repairs: tuple[Demo, ...] = ()
    left_out: int = 0

    def verified(self) -> list[tuple[Case, Attempt]]:
        """Pairs of case and attempt whose every known verdict is 1, in the order of ``cases``."""
        found = {a.case: a for a in self.attempts if a.score == 1.0}
        return [(case, found[case.id]) for case in self.cases if case.id in found]


# --- seams ----------------------------------------------------------------------------------------------


class Reply(Value, frozen=True):
    """A model's answer to one request: the OpenAI-shaped body untouched, and what it took.

    ``key`` names the call where it is remembered; empty where nothing remembers it.
    """

    body: JsonObject
    elapsed_ms: float = 0.0
    cost_usd: float | None = None
    key: str = ""

    @property
    def message(self) -> JsonObject:
        """The first choice's message."""
        message: JsonObject = self.body["choices"][0]["message"]
        return message

    @property
    def usage(self) -> Usage:
        usage = self.body.get("usage") or {}
        return Usage(
            calls=1,
            prompt_tokens=usage.get("prompt_tokens") or 0,
            completion_tokens=usage.get("completion_tokens") or 0,
            elapsed_ms=self.elapsed_ms,
            cost_usd=self.cost_usd,
        )


@runtime_checkable
class Model(Protocol):
    """Who answers.

    ``name`` is for people; ``identity`` is everything about the model that can change an answer (a file's
    digest and engine version, or a served name and base URL) and goes into memo keys and receipts.
    """

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> JsonObject: ...

    @property
    def concurrency(self) -> int:
        """How many calls at once this model answers well."""
        ...

    async def complete(self, body: JsonObject, *, sample: int = 0) -> Reply:
        """Answer one OpenAI chat-completions request *body* (without ``model``; everything in it passes through).

        ``sample`` numbers repeats of one request: it is not sent, it keeps a memo from returning one sample twice.
        Raises ``ModelError``: an infrastructure error is never an answer.
        """
        ...

    async def close(self) -> None: ...


class StreamingModel(Model, Protocol):
    """A model that can also answer piece by piece, as a server in front of it must."""

    def stream(self, body: JsonObject) -> AsyncGenerator[bytes, None]:
        """Yield the payloads of the reply's server-sent events, each one chat.completion.chunk in JSON, as they come.

        The closing ``[DONE]`` is left out.  *body* is as for ``complete``; ``stream`` is set here.  Raises
        ``ModelError`` as ``complete`` does, before the first piece or between two.  Closing the generator stops the
        computation.
        """
        ...


class Check(Protocol):
    """Judges an answer with no person.

    ``trusted`` says that the check executes, validates or compares with a target, so that it may count as
    proof.  ``needs_target`` says that it reads the answer key, so that nothing that learns may run it.
    """

    @property
    def name(self) -> str: ...

    @property
    def trusted(self) -> bool: ...

    @property
    def needs_target(self) -> bool: ...

    @property
    def spec(self) -> JsonObject:
        """Kind and settings, as in a task file: enough for a stranger to score the same answer again."""
        ...

    def __call__(self, case: Case, answer: Answer) -> Score | float | None:
        """Return a score in [0, 1], or ``None`` for *unknown*."""
        ...


class Learner(Protocol):
    """Reads evidence, proposes policies.  It never promotes and never sees a held-out case."""

    @property
    def name(self) -> str: ...

    def propose(self, head: Policy, evidence: Evidence) -> Sequence[Proposal] | Coroutine[Any, Any, Sequence[Proposal]]:
        """Return policies worth trying next, each differing from *head*; the order is the order of trying.

        A learner that asks a model or trains one is ``async``: others are served while it works.
        """
        ...


def judge(checks: Iterable[Check], case: Case, answer: Answer) -> tuple[Verdict, ...]:
    """Run *checks* on one answer; the one boundary between us and a user's check.

    Raises ``CheckError`` naming check and case when a check raises, or returns something that is not ``None``
    or a number in [0, 1].
    """
    verdicts = []
    for check in checks:
        try:
            result = check(case, answer)
        except (Exception, SystemExit) as error:  # the check is not ours: name it and the case, whatever it raised
            raise CheckError(
                f"check {check.name!r} raised {type(error).__name__} on case {case.name or case.id[:12]!r}: {error}; "
                "a check must return a score in [0, 1] or None",
                check=check.name,
            ) from error
        score = Score(value=result) if isinstance(result, int | float) else result
        if score is not None and not (
            isinstance(score, Score) and isinstance(score.value, int | float) and 0.0 <= score.value <= 1.0
        ):
            raise CheckError(
                f"check {check.name!r} returned {getattr(result, 'value', result)!r} on case "
                f"{case.name or case.id[:12]!r}; a score must be a number in [0, 1], or None for unknown",
                check=check.name,
            )
        if score is None:
            verdicts.append(Verdict(check=check.name, trusted=check.trusted))
        else:
            verdicts.append(
                Verdict(
                    check=check.name,
                    trusted=check.trusted,
                    score=float(score.value),
                    feedback=score.feedback,
                    group=score.group,
                )
            )
    return tuple(verdicts)


def lowest(verdicts: Iterable[Verdict]) -> float | None:
    """Return the lowest known score, ``None`` where nothing is known: all checks must pass."""
    return min((v.score for v in verdicts if v.score is not None), default=None)


# --- errors ---------------------------------------------------------------------------------------------


class GainfulError(Exception):
    """All our errors: one sentence saying where, what was seen and what to do.  Survives pickling."""

    exit_code = 2


class TaskError(GainfulError):
    """A task file, a case or a split that cannot be used."""


class CheckError(GainfulError):
    """A check that raised or returned something that is no score; ``check`` is its name, empty where none is at fault.

    The sentence may quote the case; the name may be logged.
    """

    def __init__(self, sentence: str, *, check: str = "") -> None:
        super().__init__(sentence)
        self.check = check


class LearnerError(GainfulError):
    """A learner that raised or proposed something that is no policy."""


class ModelError(GainfulError):
    """The model could not answer: an infrastructure error, never a wrong answer.

    Where a server answered with an error, ``status`` is its HTTP status, ``said`` the body it sent and
    ``retry_after_s`` how long it asks to wait; ``None`` where it did not say.
    """

    def __init__(
        self,
        sentence: str,
        *,
        status: int | None = None,
        said: JsonObject | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status, self.said, self.retry_after_s = status, said, retry_after_s

    def __reduce__(self) -> tuple[Callable[..., ModelError], tuple[Any, ...]]:
        return _model_error, (type(self), str(self), self.status, self.said, self.retry_after_s)


def _model_error(kind: type[ModelError], sentence: str, *heard: Any) -> ModelError:
    """Make a model's error again after pickling."""
    status, said, retry_after_s = heard
    return kind(sentence, status=status, said=said, retry_after_s=retry_after_s)


class ModelNotFound(ModelError):
    """No such model, file or server: trying again will not help."""


class AdapterNotFound(ModelNotFound):
    """An adapter that this model cannot answer with: files that are missing or changed, another base, no way to load.

    The model itself is well: whoever serves answers without the adapter and says so.
    """


class RequestRefused(ModelError):
    """The model was reached and will never answer this request: too long, a schema it cannot keep, content it filters.

    The fault lies with the request, so with the policy that made it: an arm that meets it scores 0.
    """


class TrainError(GainfulError):
    """Training that cannot begin, or broke off: a package, memory, disk or material that is missing, another base."""


class StoreError(GainfulError):
    """A store that cannot be opened, read or written; what was committed before is safe."""


class ReceiptError(GainfulError):
    """A receipt that cannot be read."""


class CalibrationError(GainfulError):
    """Nothing can be calibrated: no verdict is known beyond doubt, or a package is missing."""


class ServeError(GainfulError):
    """A server that cannot be started: a port in use, keys that are missing, a task that cannot be served."""


class Busy(GainfulError):
    """More is asked at once than is taken on; the caller may ask again after ``retry_after_s``.

    ``reason``: the house is ``full``, or this caller is above its own ``rate``.
    """

    def __init__(self, sentence: str, *, reason: Literal["full", "rate"] = "full", retry_after_s: float = 1.0) -> None:
        super().__init__(sentence)
        self.reason, self.retry_after_s = reason, retry_after_s


class ApiError(GainfulError):
    """What a caller of the server is told in place of a reply, in the shape of OpenAI's errors.

    ``status`` is an HTTP status; ``kind`` is OpenAI's ``type``; ``param`` is the member or header at fault;
    ``retry_after_s`` is how long to wait before it is worth trying again, ``None`` where waiting will not help.
    """

    def __init__(
        self,
        sentence: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status, self.code, self.param, self.kind = status, code, param, kind
        self.retry_after_s = retry_after_s

    def shape(self) -> JsonObject:
        """Return the body of the reply.

        >>> ApiError("n is 0; it must lie between 1 and 16", param="n").shape()["error"]["param"]
        'n'
        """
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


class Stopped(GainfulError):
    """The run stopped before its end, by Ctrl-C, its time limit or its budget; it can be resumed."""

    exit_code = 3

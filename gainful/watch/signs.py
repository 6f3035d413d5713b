"""What text looks like that talks to the model instead of asking it something: the tables that ``screen`` looks up.

Guarantees: every pattern takes time linear in the length of the text, for each repeat is bounded.  Patterns are written
for text as ``disguises.readings`` gives it: lower case, without accents and hidden characters.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Sign(NamedTuple):
    """What is looked for, and why nothing learns from a text that has it."""

    reason: str
    pattern: re.Pattern[str]


def _phrases(reason: str, *patterns: str) -> tuple[Sign, ...]:
    """Compile *patterns*; a blank in one stands for up to four characters that are no letters, or for none."""
    return _marks(reason, *(pattern.replace(" ", r"[\W_]{0,4}") for pattern in patterns))


def _marks(reason: str, *patterns: str) -> tuple[Sign, ...]:
    return tuple(Sign(reason, re.compile(pattern, re.MULTILINE)) for pattern in patterns)


OVERRIDES = "asks the model to drop its instructions"
ORDERS = "gives the model orders beyond this request"
MARKUP = "carries the marks of a chat template, a role or a tool call"
ANSWERS = "says what the right answer is to be"

_DROP = (
    r"\b(?:ignore|disregard|forget|override|overrule|bypass|discard|neglect|do not follow|dont follow|stop following)"
)
_ANY = r"(?: (?:all|any|every|everything|each|of|the|your|these|those|that|this|other|my|what|came|was|were|and))"
_BEFORE = r"(?:previous|prior|above|earlier|preceding|initial|original|former|old|existing|foregoing|before|system)"
_SAID = (
    r"(?:instruct|prompt|rule|direct(?:ion|ive)|guideline|guidance|command|order|polic|polic(?:y|ies)|context|constraint|"
    r"restriction|programming|training|safeguard|example|demo\b|demonstration)"
)
_MODEL_DOES = (
    r"(?:answer|reply|respond|output|recommend|classify|label|categori[sz]e|choose|pick|select|mention|include|append|"
    r"prefix|prepend|print|say|tell|write|return|start|begin|end|finish|conclude|refuse|insert)"
)
_REQUESTS = (
    r"(?:request|question|message|answer|reply|replies|response|prompt|conversation|user|session|turn|quer(?:y|ies)|case|"
    r"call|chat)"
)
_MANY = r" (?:all|any|every|each|everything|such|these|those|messages|requests|questions)"
_THEM = (
    r"(?: (?:this|it|that|these|those|them|every|all|any|such|each|everything|messages?|requests?|questions?|cases?|"
    r"texts?|about|like|containing|with))"
)
_LATER = r"(?:future|following|subsequent|further|next|later|other|upcoming|coming)"

OVERRIDING = _phrases(
    OVERRIDES,
    rf"{_DROP}{_ANY}{{0,5}} {_BEFORE}{_ANY}{{0,3}}(?: {_BEFORE})? {_SAID}",
    rf"{_DROP}{_ANY}{{1,4}} {_SAID}",
    rf"{_DROP}{_ANY}{{0,4}} (?:you (?:were|have been) (?:told|taught)|you know|you learned|above|before this)\b",
    r"\b(?:new|updated|revised|real|actual|true|secret|hidden) (?:system )?(?:instructions?|directives?|prompt)\b",
    r"\bsystem (?:prompt|instructions?|override|directive)\b",
    r"\b(?:developer|debug|god|admin|sudo|dan|unrestricted|jailbreak) mode\b",
    r"\b(?:jailbreak|jailbroken|do anything now|prompt injection)\b",
    r"\b(?:reveal|repeat|print|show|leak|output|tell me)(?: (?:me|us|all|the|of|your)){0,6} (?:hidden|secret|initial)? "
    r"(?:your|system) (?:instructions|prompt|rules)\b",
    # the same in the languages that most traffic is in; stems, since endings vary
    r"\b(?:ignorier|vergiss|missacht)\w{0,3} (?:\w{1,12} ){0,4}(?:anweisung|vorgabe|regel|instruktion|befehl)",
    r"\b(?:ignor|olvid|descart)\w{0,4} (?:\w{1,12} ){0,4}(?:instruccion|indicacion|regla|orden)",
    r"\b(?:ignor|oubli|neglig)\w{0,4} (?:\w{1,12} ){0,4}(?:instruction|consigne|regle|directive)",
    r"\b(?:ignor|dimentic|trascur)\w{0,4} (?:\w{1,12} ){0,4}(?:istruzion|regol|indicazion|comand)",
    r"\b(?:ignor|esquec|desconsider)\w{0,4} (?:\w{1,12} ){0,4}(?:instruco|regra|orden|comando)",
    r"(?:игнориру|забуд|проигнорир)\w{0,6} (?:\w{1,14} ){0,4}(?:инструкц|указани|правил|команд)",
    r"(?:忽略|无视|無視|忘记|忘記).{0,12}(?:指示|指令|说明|規則|规则|提示|命令)",
    r"(?:以前|前|上記|これまで).{0,8}(?:指示|命令|ルール).{0,6}(?:無視|忘れ)",
)

ORDERING = _phrases(
    ORDERS,
    r"\bfrom (?:now|this (?:point|moment)|today) on(?:wards?)?\b",
    r"\b(?:henceforth|from now onwards?|going forward|as of now) (?:you|always|never|please)",
    rf"\b(?:for|in|to|with|on)(?: (?:all|any|every|each|the|your|my)){{0,6}} {_LATER} {_REQUESTS}",
    rf"(?<!\bi\x20)(?<!\bwe\x20)\b(?:always|never|invariably|under no circumstances) {_MODEL_DOES}\b",
    rf"\byou (?:must|shall|have to|are to|are required to|are obliged to|will|should)(?: (?:now|also|only|always|never|"
    rf"not|instead|henceforth)){{0,6}} {_MODEL_DOES}\b",
    r"\byou (?:must|shall|should|will) (?:always|never|obey|ignore|comply|pretend)\b",
    r"\byou are (?:now|no longer|henceforth) (?:a|an|the|in|my|free|not|bound|allowed|going|dan|called)\b",
    r"(?:^|[.!?:;,\n]\s{0,2}|\bplease |\byou )(?:act|behave|roleplay|role play) as (?:a|an|if|though|my|the)\b",
    r"\bpretend (?:to be|you are|youre|that you|you)\b",
    r"\byour (?:new|only|real|true|actual|sole) (?:task|job|role|goal|purpose|objective|persona|identity|name)"
    r" (?:is|are)\b",
    r"\b(?:dear|attention|hey|hello|note to|message to|important for)(?: the| all| any){0,3} (?:ai|llm|language model|"
    r"assistant|chatbot|model) (?:reading|processing|that|who|you|must|please|should)\b",
    r"\b(?:as|you are) an? (?:ai|llm|large language model|language model|ai assistant|helpful assistant)\b",
    r"\b(?:when|whenever|if|each time|every time|any ?time|as soon as|once) (?:you (?:see|read|encounter|meet|hear|"
    r"get|are asked|notice|receive)|(?:the|a) (?:user|customer|caller|request|message|text|question|prompt|input)|"
    rf"someone|anyone|anybody|somebody).{{0,80}}?\b{_MODEL_DOES}\b",
    rf"\b(?:remember|memori[sz]e|learn|store|save|keep in mind|note|bear in mind)\b.{{0,60}}?\b(?:{_LATER}|all|every) "
    rf"{_REQUESTS}",
    r"\b(?:remember|memori[sz]e|keep|save|store) this (?:rule|instruction|fact|answer|policy|for (?:ever|good))\b",
    r"\b(?:instead of|rather than) (?:answering|replying|responding|classifying|calling|doing (?:this|that|what))\b",
    r"\b(?:regardless|irrespective|no matter)(?: of)? (?:what|which|the|how) (?:\w{1,12} ){0,3}(?:asks?|says?|wants?|"
    r"request|question|input|message|user)",
)

MARKING = _marks(
    MARKUP,
    r"<\|[^|<>\n]{1,40}\|>",
    r"<[|｜][^<>\n]{1,40}[|｜]>",
    r"<\|?(?:im_start|im_end|endoftext|eot_id|eos|bos|start_header_id|end_header_id|begin_of_text|fim_\w{1,8})\|?>",
    r"\[\/?(?:inst|sys|system|assistant|user|tool_calls|available_tools|tool_results)\]",
    r"<<\/?sys>>",
    r"<\/?s>",
    r"<\/?(?:start|end)_of_turn>",
    r"<\/?(?:system|assistant|user|human|developer|instructions?|prompt|tool_call|tool_calls|tool_response|tools|"
    r"function_call|function_calls|function|invoke|parameter|think|thinking|scratchpad|example|examples|context|document)"
    r"(?:[\s=:][^<>\n]{0,80})?>",
    r"<\/?(?:antml|gainful)[:_]\w{0,40}[^<>\n]{0,80}>?",
    r"^[ \t>*#_`\-]{0,8}(?:system|assistant|developer|human|ai|bot|model|chatbot|gpt|tool|function)(?: (?:message|"
    r"prompt|reply|response|turn|note))?[*_`]{0,3}\s{0,2}[:：>]",
    r"^\s{0,4}#{1,6}\s{0,3}(?:system|assistant|user|human|(?:new )?instructions?|response|input|output|example)"
    r"\b",
    r"^[ \t>*#_`\-]{0,8}(?:example(?: \d{1,3})?|request|reply)[*_`]{0,3}[ \t]{0,2}(?:[:：]|$)",
    r"\"(?:tool_calls|function_call)\"\s{0,3}:\s{0,3}[\"\[{]",
    r"\"role\"\s{0,3}:\s{0,3}\"(?:system|assistant|user|tool|developer)\"",
    r"^\s{0,4}(?:-{3,}|={3,}|\*{3,}|~{3,})\s{0,3}(?:end|begin|start|system|new|instructions?|user|assistant|stop)\b",
)

ANSWERING = _phrases(
    ANSWERS,
    r"\b(?:correct|right|expected|true|gold|desired|only valid|proper|best) (?:answer|label|reply|response|output|"
    r"category|class|intent|classification|function call)(?: (?:here|to|for|of|this|that|it|the|these|all|every|always|"
    r"such|question|request|message)){0,6} (?:is|are|should|must|will be|[:=])",
    r"\b(?:answer|label|category|class|intent) (?:is|must be|should be|shall be) (?:always|never)\b",
    rf"\b(?:classify|label|categori[sz]e|tag|intent){_THEM}{{1,6}} (?:as|under|to be) ",
    rf"\b(?:classify|label|categori[sz]e|tag|mark|flag|file|route|treat|count|sort){_MANY}(?:\x20\w{{1,20}}){{0,6}}\x20"
    r"(?:as|under|into|to be)\b",
)

PATTERNS_FOR_ALL = (*OVERRIDING, *MARKING)
"""For every turn, an operator's own system turn included."""

PATTERNS_FOR_USERS = (*ORDERING, *ANSWERING)
"""For what a user says: an operator's system turn gives orders, and need not be ashamed of it."""

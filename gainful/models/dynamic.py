"""Adapters that a server loads while it runs, as vLLM does (https://docs.vllm.ai/en/latest/features/lora/).

``POST /v1/load_lora_adapter`` with a name and a folder that the server can read; from then on the name is a model like
any other.  Guarantees: each adapter is asked for once, and again where the server has forgotten it; its files are
checked here before a server is told where they lie.
"""

from __future__ import annotations

import asyncio

from gainful.core import Adapter, AdapterNotFound
from gainful.models.adapters import find_adapter
from gainful.models.session import Response, Session

LOAD = "/load_lora_adapter"
NAME_DIGITS = 16  # of an adapter's digest: 64 bits tell every adapter of one server apart
LOADED = "already been loaded"  # in vLLM's own words, with status 400
NEVER = frozenset({404, 405})  # with no words about an adapter: the route is not there


class DynamicAdapters:
    """The adapters that the server behind *session*, at *where*, has been told to load for the model *base*.

    Bound to the event loop it is first used in.
    """

    def __init__(self, session: Session, where: str, base: str) -> None:
        self._session = session
        self._where = where
        self._base = base
        self._names: dict[Adapter, str] = {}
        self._turn = asyncio.Lock()

    async def load(self, adapter: Adapter) -> Response | None:
        """Have *adapter* loaded; return the server's reply where time may cure what it says, ``None`` once it is there.

        Raises ``AdapterNotFound`` where it cannot be had, and what ``Session.post`` raises.
        """
        if adapter in self._names:
            return None
        async with self._turn:
            if adapter in self._names:  # loaded while we waited
                return None
            if adapter.base != self._base:
                raise AdapterNotFound(
                    f"{adapter.label} was trained on the model {adapter.base[:80]!r}, and {self._where} is asked for "
                    f"{self._base!r}; serve that model, or train an adapter for this one"
                )
            folder = await asyncio.to_thread(find_adapter, adapter)
            name = adapter_name(adapter)
            response = await self._session.post(LOAD, {"lora_name": name, "lora_path": str(folder)})
            if response.status == 200 or LOADED in response.words:
                self._names[adapter] = name
                return None
            if response.status in (401, 403, 408, 429, 502, 503, 504):
                return response
            raise self._refusal(adapter, response, str(folder))

    def forget(self, adapter: Adapter) -> None:
        """Have it loaded again at its next use: the server does not know it any more."""
        self._names.pop(adapter, None)

    def _refusal(self, adapter: Adapter, response: Response, folder: str) -> AdapterNotFound:
        status, said, words = response.status, response.said, response.words
        if status in NEVER and not (isinstance(said, dict) and isinstance(said.get("error"), dict)):
            sentence = (
                f"{self._where} cannot load {adapter.label} ({status}: {words!r}); start vLLM with --enable-lora "
                f"--max-lora-rank {adapter.rank} and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
            )
        else:
            sentence = (
                f"{self._where} did not load {adapter.label} from {folder} ({status}: {words!r}); the server must see "
                f"that folder under the same path, and run with --enable-lora --max-lora-rank {adapter.rank} or more"
            )
        return AdapterNotFound(sentence, status=status, said=said)


def adapter_name(adapter: Adapter) -> str:
    """Return the name by which the server knows *adapter*.

    >>> adapter_name(Adapter(sha256="1a2b3c4d" * 8, base="m", rank=16, alpha=32.0))
    '1a2b3c4d1a2b3c4d'
    """
    return adapter.sha256[:NAME_DIGITS]

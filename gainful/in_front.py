"""What a model that stands in front of another has in common with it."""

from __future__ import annotations

from pathlib import Path

from gainful.core import JsonObject, Model


class ModelInFront:
    """What stands in front of *model* and is called as that is; whoever derives from it says how it answers."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def name(self) -> str:
        """The model's name."""
        return self._model.name

    @property
    def identity(self) -> JsonObject:
        """The model's identity."""
        return self._model.identity

    @property
    def file(self) -> Path | None:
        """Where the model's weights lie, ``None`` where they are not on this machine."""
        file: Path | None = getattr(self._model, "file", None)
        return file

    @property
    def concurrency(self) -> int:
        """The model's concurrency."""
        return self._model.concurrency

    async def close(self) -> None:
        """Close the model, and nothing else."""
        await self._model.close()

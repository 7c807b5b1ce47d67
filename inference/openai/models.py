"""The models of this surface: personas that a key may use, and the bare chat model for keys with their own prompt."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from accounts.callers import Caller
from inference.engines.base import EngineDead, EngineRole
from inference.openai.errors import OpenAIError, invalid
from inference.serving_context import ServingContext
from personas.snapshot import PersonaSnapshot

MAX_MODEL_CHARS = 256
MAX_NAMES_IN_ERROR = 20


@dataclass(frozen=True, slots=True)
class Model:
    """One model.

    Args:
        id: the name that clients send: a persona's slug, or the chat model's name.
        name: the name for people.
        persona: the stored persona; None for the bare chat model, whose persona is the request's system text.
    """

    id: str
    name: str
    persona: PersonaSnapshot | None


class Models:
    """The models that a key may use, under the catalogue in force.

    Args:
        context: the catalogue and the engines.
        default: the persona that answers unknown names; empty: such a name is an error.
    """

    def __init__(self, context: ServingContext, default: str = "") -> None:
        self._context = context
        self._default = default
        self._created = int(time.time())

    def of(self, caller: Caller) -> list[Model]:
        """Return the models of a key."""
        catalogue = self._context.resolver.catalogue
        models = [
            Model(slug, persona.name, persona)
            for slug, persona in catalogue.personas.items()
            if caller.personas is None or slug in caller.personas
        ]
        bare = self._bare_name()
        if caller.own_chat_prompt and bare and bare not in catalogue.personas:
            models.append(Model(bare, bare, None))
        return models

    def choose(self, name: Any, caller: Caller) -> Model:
        """Return the model that a request names. Without a name the default persona answers.

        Raises:
            OpenAIError: ``model_not_found``, with the names that there are.
        """
        if name is not None and (not isinstance(name, str) or len(name) > MAX_MODEL_CHARS):
            raise invalid(f"model must be a string of at most {MAX_MODEL_CHARS} characters", "model")
        found = self.find(name or "", caller) or self.find(self._default, caller)
        if found is not None:
            return found
        if not name:
            raise invalid(f"model is required; there are: {self._names(caller)}", "model", "missing_required_parameter")
        raise self.unknown(name, caller)

    def unnamed(self, caller: Caller) -> Model | None:
        """Return the model of clients that name none, such as TabbyAPI's: the default persona, else the first model.

        Returns:
            None where the key may use no model.
        """
        return self.find(self._default, caller) or next(iter(self.of(caller)), None)

    def unknown(self, name: str, caller: Caller) -> OpenAIError:
        """Return the error of a name that the key has no model for; the message lists the key's models."""
        message = f"the model {name[:MAX_MODEL_CHARS]!r} does not exist for this key; there are: {self._names(caller)}"
        return OpenAIError(404, "model_not_found", message, param="model")

    def find(self, name: str, caller: Caller) -> Model | None:
        """Return the model with this name, or None."""
        persona = self._context.resolver.catalogue.by_slug(name)
        if persona is not None and (caller.personas is None or name in caller.personas):
            return Model(name, persona.name, persona)
        if persona is None and name and caller.own_chat_prompt and name == self._bare_name():
            return Model(name, name, None)
        return None

    def describe(self, model: Model) -> dict[str, Any]:
        """Return a model as ``/v1/models`` shows it."""
        length = self._context.resolver.encoder.limits.chat_context
        return {
            "id": model.id,
            "object": "model",
            "created": self._created,
            "owned_by": "yap",
            "name": model.name,
            "context_length": length,
            "max_model_len": length,
        }

    def _names(self, caller: Caller) -> str:
        names = [model.id for model in self.of(caller)]
        shown = ", ".join(names[:MAX_NAMES_IN_ERROR]) + (", …" if len(names) > MAX_NAMES_IN_ERROR else "")
        return shown or "none"

    def _bare_name(self) -> str:
        """Return the chat model's name without its folder or owner; empty while there is no chat engine."""
        engines = self._context.engines
        if not engines.deployed(EngineRole.CHAT):
            return ""
        try:
            return engines.engine(EngineRole.CHAT).model.rstrip("/").rpartition("/")[2]
        except EngineDead:
            return ""

"""``GET /v1/models`` and ``GET /v1/models/{id}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import orjson

from accounts.callers import Caller
from inference.openai.context import OpenAIContext
from inference.openai.sse import Exchange


async def list_models(context: OpenAIContext, exchange: Exchange, caller: Caller, fields: Mapping[str, Any]) -> None:
    """List the models that the key may use."""
    models = [context.models.describe(model) for model in context.models.of(caller)]
    await exchange.answer(200, orjson.dumps({"object": "list", "data": models}))


async def show_model(context: OpenAIContext, exchange: Exchange, caller: Caller, fields: Mapping[str, Any]) -> None:
    """Show one model.

    Raises:
        OpenAIError: the key may not use such a model, or there is none.
    """
    name = unquote(exchange.path.removeprefix("/v1/models/"))
    model = context.models.find(name, caller)
    if model is None:
        raise context.models.unknown(name, caller)
    await exchange.answer(200, orjson.dumps(context.models.describe(model)))

"""The endpoints of TabbyAPI and vLLM that SillyTavern's text-completion types read beside ``/v1/completions``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from accounts.callers import Caller
from inference.openai.context import OpenAIContext
from inference.openai.errors import OpenAIError, invalid
from inference.openai.sse import Exchange
from inference.prompting.text_encoder import LONG_TEXT_CHARS, MAX_CHARS_PER_TOKEN
from inference.turn_admission import require_chat_engine


async def show_default_model(
    context: OpenAIContext, exchange: Exchange, caller: Caller, fields: Mapping[str, Any]
) -> None:
    """``GET /v1/model``: the model that answers ``/v1/completions`` where a client names none.

    Raises:
        OpenAIError: the key may use no model.
    """
    model = context.models.unnamed(caller)
    if model is None:
        raise OpenAIError(404, "model_not_found", "there is no model for this key", param="model")
    shown = context.models.describe(model)
    shown["parameters"] = {"max_seq_len": shown["max_model_len"]}
    await exchange.answer(200, orjson.dumps(shown))


async def encode_tokens(context: OpenAIContext, exchange: Exchange, caller: Caller, fields: Mapping[str, Any]) -> None:
    """``POST /v1/token/encode`` of TabbyAPI: the chat model's token ids of ``text``.

    Raises:
        OpenAIError: the text is absent, or longer than the context can be.
        ProtocolError: there is no chat engine, or the key has many texts encoded.
    """
    ids = await _ids(context, caller, fields.get("text"), "text")
    await exchange.answer(200, orjson.dumps({"tokens": ids, "length": len(ids)}))


async def tokenize(context: OpenAIContext, exchange: Exchange, caller: Caller, fields: Mapping[str, Any]) -> None:
    """``POST /tokenize`` of vLLM: the chat model's token ids of ``prompt``. All personas share one tokenizer.

    Raises:
        OpenAIError: the text is absent, or longer than the context can be.
        ProtocolError: there is no chat engine, or the key has many texts encoded.
    """
    ids = await _ids(context, caller, fields.get("prompt"), "prompt")
    most = context.serving.resolver.encoder.limits.chat_context
    answer = {"count": len(ids), "max_model_len": most, "tokens": ids, "token_strs": None}  # nosec B105
    await exchange.answer(200, orjson.dumps(answer))


async def _ids(context: OpenAIContext, caller: Caller, text: Any, name: str) -> list[int]:
    """Return the token ids of a field, in a thread where the text is long."""
    require_chat_engine(context.serving)
    encoder = context.serving.resolver.encoder
    assert encoder.chat is not None
    if not isinstance(text, str):
        raise invalid(f"{name} must be a string", name)
    most = encoder.limits.chat_context * MAX_CHARS_PER_TOKEN
    if len(text) > most:
        raise invalid(f"{name} may have at most {most} characters", name)
    context.encodings.charge(caller, 1 + len(text) // LONG_TEXT_CHARS)
    encode = encoder.chat.text.encode
    return await asyncio.to_thread(encode, text) if len(text) > LONG_TEXT_CHARS else encode(text)

"""The OpenAI surface in the OpenAPI schema. The surface is no Django view, so its paths are written here."""

from __future__ import annotations

from typing import Any

from django.conf import settings

TAG = "v1"
_SECURITY: list[dict[str, list[str]]] = [{"header": []}, {"bearer": []}]
_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "number"}
_COUNT: dict[str, Any] = {"type": "integer"}
_FLAG: dict[str, Any] = {"type": "boolean"}
_OBJECT: dict[str, Any] = {"type": "object", "additionalProperties": True}
_TEXTS: dict[str, Any] = {"oneOf": [_TEXT, {"type": "array", "items": _TEXT}]}
_SAMPLING: dict[str, Any] = {
    "model": _TEXT,
    "stream": _FLAG,
    "stream_options": {"type": "object", "properties": {"include_usage": _FLAG}},
    "max_tokens": _COUNT,
    "stop": _TEXTS,
    "banned_strings": {"type": "array", "items": _TEXT, "maxItems": 64},
    "bad_words": {"type": "array", "items": _TEXT, "maxItems": 64},
    "user_identity": {"type": "string", "maxLength": 64},
    "logit_bias": _OBJECT,
    **dict.fromkeys(("temperature", "top_p", "top_k", "min_p", "repetition_penalty"), _NUMBER),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), _NUMBER),
}
_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": _TEXT,
                "type": _TEXT,
                "param": {**_TEXT, "nullable": True},
                "code": {**_TEXT, "nullable": True},
            },
        }
    },
}
_STATUSES = {
    "400": "The request can never succeed.",
    "401": "The key is absent, unknown, revoked or expired.",
    "404": "The key has no such model.",
    "413": "The body is larger than 1 MiB.",
    "429": "A limit of the key is reached; `Retry-After` holds seconds.",
    "500": "An internal error; the message holds a reference to the log.",
    "503": "The server is full, not ready or stopping; `Retry-After` holds seconds.",
}


def add_openai_surface(result: dict[str, Any], **_given: Any) -> dict[str, Any]:
    """Add the paths below ``/v1`` to the schema (a postprocessing hook of drf-spectacular).

    Args:
        result: the schema.

    Returns:
        The schema. Unchanged where the surface is switched off.
    """
    if settings.ENV.OPENAI_API:
        result["paths"].update(paths())
        result["components"]["schemas"]["OpenAIError"] = _ERROR
    return result


def paths() -> dict[str, Any]:
    """Return the path items of the surface."""
    chat = {
        **_SAMPLING,
        "messages": {"type": "array", "items": _OBJECT},
        "max_completion_tokens": _COUNT,
        "tools": {"type": "array", "items": _OBJECT, "maxItems": 64},
        "tool_choice": {},
        "response_format": _OBJECT,
    }
    responses = {
        **_SAMPLING,
        "input": {"oneOf": [_TEXT, {"type": "array", "items": _OBJECT}]},
        "instructions": _TEXT,
        "previous_response_id": _TEXT,
        "store": _FLAG,
        "generate": {**_FLAG, "description": "False computes the prompt into the prefix cache."},
        "metadata": _OBJECT,
        "text": {"type": "object", "properties": {"format": _OBJECT}},
        "tools": {"type": "array", "items": _OBJECT, "maxItems": 64},
        "tool_choice": {},
        "max_output_tokens": _COUNT,
    }
    return {
        "/v1/models": {"get": _operation("models_list", "Personas and models that this key may use.")},
        "/v1/models/{id}": {
            "get": {
                **_operation("models_show", "One model."),
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": _TEXT}],
            }
        },
        "/v1/chat/completions": {
            "post": _operation("chat_completions", "One reply, streamed or whole.", chat, ["messages"], streams=True)
        },
        "/v1/responses": {
            "get": _socket("responses_socket", []),
            "post": _operation("responses", "One response, streamed or whole.", responses, streams=True),
        },
        "/v1": {"get": _socket("socket", [{"name": "model", "in": "query", "schema": _TEXT}])},
        "/v1/completions": {
            "post": _operation(
                "completions", "A text continued.", {**_SAMPLING, "prompt": _TEXT}, ["prompt"], streams=True
            )
        },
        "/v1/token/encode": {
            "post": _operation("token_encode", "The chat model's tokens of a text.", {"text": _TEXT}, ["text"])
        },
        "/tokenize": {"post": _operation("tokenize", "The same, as vLLM has it.", {"prompt": _TEXT}, ["prompt"])},
        "/v1/model": {"get": _operation("model_show_default", "The model that answers by default.")},
        "/v1/model/list": {"get": _operation("model_list", "The same as `/v1/models`.")},
    }


def _socket(name: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the operation of a handshake: OpenAPI has no WebSockets."""
    operation = _operation(name, "The Responses WebSocket: a handshake with `Upgrade: websocket`.")
    refused = {status: operation["responses"][status] for status in ("401", "429", "503")}
    opened = {"description": "The WebSocket is open: send `response.create` and `response.cancel`."}
    return {**operation, "parameters": parameters, "responses": {"101": opened, **refused}}


def _operation(
    name: str,
    summary: str,
    fields: dict[str, Any] | None = None,
    required: list[str] | None = None,
    *,
    streams: bool = False,
) -> dict[str, Any]:
    """Return one operation. Unknown fields are ignored; sampling values are moved into the server's ranges."""
    content: dict[str, Any] = {"application/json": {"schema": _OBJECT}}
    if streams:
        content["text/event-stream"] = {"schema": _TEXT}
    failed = {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIError"}}}
    operation: dict[str, Any] = {
        "operationId": f"v1_{name}",
        "summary": summary,
        "tags": [TAG],
        "security": _SECURITY,
        "responses": {
            "200": {"description": summary, "content": content},
            **{status: {"description": why, "content": failed} for status, why in _STATUSES.items()},
        },
    }
    if fields is not None:
        schema = {"type": "object", "properties": fields, "additionalProperties": True}
        if required:
            schema["required"] = required
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation

"""The OpenAI-compatible HTTP surface: a raw ASGI application for ``/v1``, beside Channels and before Django.

A browser's preflight is answered first. The order of other requests: body, key, readiness, refused requests of the
key, then the endpoint's own checks (message window, token budget, model, fields, slot), the head, the turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from accounts.addresses import client_address_of
from accounts.callers import Caller
from accounts.credentials import credentials_from_scope
from inference.accounting import account_refusal
from inference.engines.base import EngineDead
from inference.failures import client_error
from inference.openai.callers import REFUSED_BYTES_PER_UNIT
from inference.openai.chat import chat_completions
from inference.openai.completions import completions
from inference.openai.context import OpenAIContext
from inference.openai.errors import OpenAIError, from_protocol_error
from inference.openai.listing import list_models, show_model
from inference.openai.messages import require_object
from inference.openai.responses_http import create_response
from inference.openai.sse import ClientGone, Exchange, Receive, Send
from inference.openai.tabby import encode_tokens, show_default_model, tokenize
from inference.protocol.errors import ErrorCode, ProtocolError
from inference.protocol.json_text import parse_json

logger = logging.getLogger("yap.openai")

Handler = Callable[[OpenAIContext, Exchange, Caller, Mapping[str, Any]], Coroutine[Any, Any, None]]
"""``(context, exchange, caller, fields of the body)``; answers the exchange or raises."""

ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/v1/models"): list_models,
    ("GET", "/v1/model/list"): list_models,
    ("GET", "/v1/model"): show_default_model,
    ("POST", "/v1/completions"): completions,
    ("POST", "/v1/token/encode"): encode_tokens,
    ("POST", "/tokenize"): tokenize,
    ("POST", "/v1/chat/completions"): chat_completions,
    ("POST", "/v1/responses"): create_response,
}
_ONE_MODEL = "/v1/models/"
_OTHER_PATHS = frozenset({"/v1", "/tokenize", "/tokenize/"})
"""The paths of this surface that do not begin with ``/v1/``."""


def is_openai_path(path: str) -> bool:
    """Whether a path belongs to this surface."""
    return path.startswith("/v1/") or path in _OTHER_PATHS


class OpenAISurface:
    """The ASGI application of HTTP requests below ``/v1``.

    Args:
        context: the shared parts of the surface.
    """

    def __init__(self, context: OpenAIContext) -> None:
        self._context = context

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        pages = self._context.cross_origin
        exchange = Exchange(scope, receive, send, pages.headers(scope))
        caller: Caller | None = None
        body = b""
        try:
            preflight = pages.preflight(scope)
            if preflight is not None:
                await exchange.answer(200, b"", preflight)
                return
            handler = _handler(exchange)
            body = await exchange.body()
            caller = await self._caller(exchange)
            self._context.refused.check(caller)
            fields = _fields(exchange, body)
            await exchange.unless_gone(handler(self._context, exchange, caller, fields))
        except ClientGone:
            logger.debug("request %s: the client left", exchange.request_id)
        except (OpenAIError, ProtocolError, EngineDead) as error:
            refusal = _as_refusal(error, exchange)
            self._charge_refusal(caller, refusal, len(body))
            await self._refuse(exchange, caller, refusal)
        except Exception as error:
            failure = client_error(logger, f"request {exchange.request_id}:", error)
            await self._refuse(exchange, caller, from_protocol_error(failure))

    async def _caller(self, exchange: Exchange) -> Caller:
        scope, context = exchange.scope, self._context
        credentials = credentials_from_scope(scope)
        address = client_address_of(scope, context.admission.trust_proxy)
        return await context.authenticate(credentials.key, address)

    def _charge_refusal(self, caller: Caller | None, refusal: OpenAIError, size: int) -> None:
        """Count a request that was the client's mistake: its parsing costs time, and no message window counts it.

        A request that only came too soon counts where it is large.
        """
        units = size // REFUSED_BYTES_PER_UNIT + (refusal.status != 429)
        if caller is not None and units and refusal.status < 500:
            with suppress(ProtocolError):
                self._context.refused.charge(caller, units)

    async def _refuse(self, exchange: Exchange, caller: Caller | None, error: OpenAIError) -> None:
        if caller is None:
            self._context.serving.metrics.refused(error.code)
        else:
            account_refusal(self._context.serving, caller, error.code, "")
        logger.info(
            "refused %d %s %s key=%s",
            error.status,
            error.code,
            exchange.path[:100].encode("unicode_escape").decode(),
            caller.prefix if caller else "-",
        )
        with suppress(ClientGone):
            await exchange.refuse(error)


def _handler(exchange: Exchange) -> Handler:
    """Return the handler of a request's path and method.

    Raises:
        OpenAIError: there is no such path, or the path has no such method.
    """
    method = "GET" if exchange.method == "HEAD" else exchange.method
    handler = ROUTES.get((method, exchange.path))
    if handler is None and method == "GET" and exchange.path.startswith(_ONE_MODEL):
        handler = show_model
    if handler is not None:
        return handler
    allowed = sorted(known for known, path in ROUTES if path == exchange.path)
    if allowed or exchange.path.startswith(_ONE_MODEL):
        raise _MethodNotAllowed(", ".join(allowed or ["GET"]))
    raise OpenAIError(404, "unknown_url", f"unknown request URL: {exchange.method} {exchange.path[:200]}")


class _MethodNotAllowed(OpenAIError):
    def __init__(self, allowed: str) -> None:
        super().__init__(405, "method_not_allowed", f"this URL takes {allowed}")
        self._allowed = allowed

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"allow", self._allowed.encode())]


def _fields(exchange: Exchange, body: bytes) -> Mapping[str, Any]:
    """Return the fields of a body; empty for ``GET``."""
    if exchange.method != "POST":
        return {}
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, "the body is not UTF-8") from None
    return require_object(parse_json(text))


def _as_refusal(error: Exception, exchange: Exchange) -> OpenAIError:
    if isinstance(error, OpenAIError):
        return error
    if isinstance(error, ProtocolError):
        return from_protocol_error(error)
    return from_protocol_error(client_error(logger, f"request {exchange.request_id}:", error))

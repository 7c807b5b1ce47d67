"""Unexpected errors: a log line with the details, and the client's answer without them."""

from __future__ import annotations

import logging
import uuid

from inference.engines.base import EngineDead, SchemaRefused
from inference.protocol.errors import ErrorCode, ProtocolError

SCHEMA_REFUSED = "invalid_json_schema"
"""Not among the codes of ``/ws``, whose clients send no schema."""


def client_error(logger: logging.Logger, where: str, error: Exception, request_id: str | None = None) -> ProtocolError:
    """Log an unexpected error and return the answer for the client.

    Args:
        logger: the logger of the caller.
        where: the session or connection as log lines name it.
        error: the error.
        request_id: echoed in the answer; None where the message had none.

    Returns:
        ``engine_unavailable`` for a dead engine; :data:`SCHEMA_REFUSED` where the engine cannot follow a schema; else
        ``internal_error`` with a reference that the log line repeats.
    """
    if isinstance(error, EngineDead):
        logger.error("%s engine unavailable: %s", where, error)
        return ProtocolError(
            ErrorCode.ENGINE_UNAVAILABLE, "the engine is unavailable, try again in a moment", request_id=request_id
        )
    if isinstance(error, SchemaRefused):
        logger.info("%s JSON schema refused: %s", where, error)
        return ProtocolError(SCHEMA_REFUSED, "the engine cannot follow this JSON schema", request_id=request_id)
    reference = uuid.uuid4().hex[:12]
    logger.error("%s internal error, reference %s", where, reference, exc_info=error)
    return ProtocolError(
        ErrorCode.INTERNAL_ERROR, "something went wrong on our side", request_id=request_id, reference=reference
    )

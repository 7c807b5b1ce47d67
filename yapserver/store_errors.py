"""Answers 503 to a request whose database or Redis does not answer, without a traceback for each request in the log."""

from __future__ import annotations

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.deprecation import MiddlewareMixin
from redis.exceptions import RedisError

from accounts.database_threads import is_connection_error

RETRY_IN_S = 5


class StoreErrors(MiddlewareMixin):
    """Django middleware. Other errors of the database stay errors of the server."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Return the answer, or None for an error of another kind."""
        if isinstance(exception, OperationalError | InterfaceError):
            if not is_connection_error(exception):
                return None
            name = "database"
        elif isinstance(exception, RedisError):
            name = "redis"
        else:
            return None
        answer = JsonResponse(
            {"detail": f"The {name} does not answer, try again in {RETRY_IN_S} seconds."},
            status=503,
            headers={"Retry-After": str(RETRY_IN_S)},
        )
        # The serving process writes one line when a store goes and one when it is back (yap.dependency).
        answer._has_been_logged = True  # type: ignore[attr-defined]  # Django's own mark
        return answer

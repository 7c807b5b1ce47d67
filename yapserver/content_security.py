"""Sends a Content-Security-Policy with every answer.

No page runs an inline script. The admin theme needs two exceptions: Alpine.js compiles the expressions in its
attributes (``unsafe-eval``), and the theme sets ``style`` attributes (``unsafe-inline`` for styles alone).
"""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

Handler = Callable[[HttpRequest], HttpResponse]

_BASE = (
    "default-src 'self'; script-src 'self'{eval}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
PAGES = _BASE.format(eval="")
ADMIN = _BASE.format(eval=" 'unsafe-eval'")
DATA = "default-src 'none'; frame-ancestors 'none'"


def content_security_policy(get_response: Handler) -> Handler:
    """Django middleware. An answer that has a policy of its own keeps it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        is_page = response.get("Content-Type", "text/html").startswith("text/html")
        policy = (ADMIN if request.path.startswith("/admin/") else PAGES) if is_page else DATA
        response.headers.setdefault("Content-Security-Policy", policy)
        return response

    return middleware

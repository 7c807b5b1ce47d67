"""The page to talk, at ``/``: one template and static files. Everything else the page asks of the API and ``/ws``."""

from __future__ import annotations

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.views.decorators.http import require_safe

from yapserver.client_guides import client_guides
from yapserver.env import BASE_DIR

# Stricter than other pages: no inline style, and no image but this server's. The host is named for browsers that do
# not count a WebSocket of the page's own host as 'self'.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@require_safe
def talk_page(request: HttpRequest) -> HttpResponse:
    """Answer the page; 404 with ``TALK_PAGE=0``."""
    if not settings.ENV.TALK_PAGE:
        raise Http404
    headers = {"Content-Security-Policy": _POLICY.format(host=request.get_host()), "Cache-Control": "no-cache"}
    guides = client_guides(BASE_DIR / "README.md")
    clients = [guide for guide in guides if settings.ENV.OPENAI_API or not guide.needs_openai_api]
    page = render_to_string("talk/page.html", {"clients": clients})
    return HttpResponse(page, headers=headers)

"""An operator of the admin without a browser: logs in, fills in forms, runs actions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.nginx import Nginx
from tests.server import YapServer

NAME, PASSWORD = "operator", "a-Password-for-tests-7"


def make_operator(server: YapServer) -> None:
    """Create a superuser if the server has none of this name."""
    code = (
        "from django.contrib.auth.models import User as U; "
        f"U.objects.filter(username='{NAME}').exists() or U.objects.create_superuser('{NAME}', password='{PASSWORD}')"
    )
    server.manage("shell", "-v", "0", "-c", code)


class Operator:
    """A logged-in operator. Each method is one request and returns after the answer."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def get(self, path: str) -> httpx.Response:
        """Get a page."""
        return self._http.get(path).raise_for_status()

    def post(self, path: str, *, files: dict[str, tuple[str, bytes]] | None = None, **fields: Any) -> httpx.Response:
        """Submit a form; fails if the admin shows the form again with errors."""
        fields["csrfmiddlewaretoken"] = self._http.cookies["csrftoken"]
        answer = self._http.post(path, data=fields, files=files)
        assert answer.status_code in (200, 302), answer.text
        assert "errornote" not in answer.text, answer.text
        return answer

    def act(self, path: str, action: str, *rows: int, **fields: Any) -> httpx.Response:
        """Run an action on rows of a list."""
        return self.post(path, action=action, _selected_action=[str(row) for row in rows], **fields)

    def revoke(self, key: int) -> httpx.Response:
        """Revoke one key, with confirmation."""
        return self.act("/admin/accounts/apikey/", "revoke_selected", key, confirmed="1")


@contextmanager
def operator(server: YapServer, proxy: Nginx | None = None) -> Iterator[Operator]:
    """Log in, directly or through a TLS proxy."""
    make_operator(server)
    origin, tls = (proxy.origin, proxy.tls) if proxy else (server.origin, True)
    with httpx.Client(base_url=origin, verify=tls, headers={"Referer": f"{origin}/"}, timeout=30) as http:
        http.get("/admin/login/")
        someone = Operator(http)
        assert someone.post("/admin/login/", username=NAME, password=PASSWORD).status_code == 302
        yield someone

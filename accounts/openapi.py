"""The OpenAPI description of the key check."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema


class KeyScheme(OpenApiAuthenticationExtension):
    """Describes the three places where a request may carry its key: header, bearer token, query."""

    target_class = "accounts.authentication.KeyAuthentication"
    name = ("header", "bearer", "query")

    def get_security_definition(self, auto_schema: AutoSchema) -> list[dict[str, Any]]:
        """The security schemes, in the order of :attr:`name`."""
        return [
            {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            {"type": "http", "scheme": "bearer"},
            {"type": "apiKey", "in": "query", "name": "api_key"},
        ]

    def get_security_requirement(self, auto_schema: AutoSchema) -> list[dict[str, list[str]]]:
        """One requirement for each scheme: any one of them is enough."""
        return [{name: []} for name in self.name]

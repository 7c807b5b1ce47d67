"""How the OpenAPI schema describes the key check."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema


class KeyScheme(OpenApiAuthenticationExtension):
    """Three ways to present one key."""

    target_class = "accounts.authentication.KeyAuthentication"
    name = ("header", "bearer", "query")

    def get_security_definition(self, auto_schema: AutoSchema) -> list[dict[str, Any]]:
        """In the order of their names."""
        return [
            {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            {"type": "http", "scheme": "bearer"},
            {"type": "apiKey", "in": "query", "name": "api_key"},
        ]

    def get_security_requirement(self, auto_schema: AutoSchema) -> list[dict[str, list[str]]]:
        """Any one of them."""
        return [{name: []} for name in self.name]

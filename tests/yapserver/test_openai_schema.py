"""The OpenAPI schema lists the OpenAI surface."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from inference.openai.responses_socket import PATHS as RESPONSES_PATHS
from inference.openai.surface import ROUTES


def schema() -> dict[str, Any]:
    found: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return found


def test_every_route_of_the_surface_is_in_the_schema() -> None:
    found = schema()
    validate_schema(found)
    for method, path in ROUTES:
        operation = found["paths"][path][method.lower()]
        assert operation["responses"]["401"]["content"]["application/json"]["schema"]["$ref"].endswith("/OpenAIError")
    assert "/v1/models/{id}" in found["paths"]
    for path in {path.rstrip("/") for path in RESPONSES_PATHS}:
        assert set(found["paths"][path]["get"]["responses"]) == {"101", "401", "429", "503"}
    assert set(found["components"]["securitySchemes"]) >= {"header", "bearer"}


def test_a_surface_that_is_switched_off_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "ENV", settings.ENV.model_copy(update={"OPENAI_API": False}))
    assert not [path for path in schema()["paths"] if path.startswith("/v1")]

"""REST: the personas that a key may use."""

from __future__ import annotations

from typing import Any, Protocol, cast

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from personas.models import Persona


class _Caller(Protocol):
    """The part of an authenticated caller that this view reads: the slugs of its personas, or None for all."""

    @property
    def personas(self) -> frozenset[str] | None: ...


class PersonaSerializer(serializers.ModelSerializer[Persona]):
    """The public fields of a persona. Prompts are not among them."""

    class Meta:
        model = Persona
        fields = ("slug", "name", "gender", "personality", "output_style", "version")


class PersonaListView(APIView):
    """List the enabled personas that this key may use."""

    @extend_schema(operation_id="personas_list", responses=PersonaSerializer(many=True))  # type: ignore[untyped-decorator]  # drf_spectacular is not followed
    def get(self, request: Request) -> Response:
        """List the enabled personas that this key may use, sorted by slug."""
        caller = cast(_Caller, request.auth)
        personas = Persona.objects.filter(enabled=True).order_by("slug").only(*PersonaSerializer.Meta.fields)
        if caller.personas is not None:
            personas = personas.filter(slug__in=caller.personas)
        shown: list[dict[str, Any]] = PersonaSerializer(personas, many=True).data  # type: ignore[assignment]
        return Response(shown)

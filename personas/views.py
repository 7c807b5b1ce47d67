"""REST: the personas that a key may use, and their portraits."""

from __future__ import annotations

from typing import Any, Protocol, cast

from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from personas.models import Persona, Portrait, PortraitType


class _Caller(Protocol):
    """The part of an authenticated caller that this view reads: the slugs of its personas, or None for all."""

    @property
    def personas(self) -> frozenset[str] | None: ...


def _allowed(request: Request) -> QuerySet[Persona]:
    """The enabled personas that the key of a request may use."""
    caller = cast(_Caller, request.auth)
    personas = Persona.objects.filter(enabled=True)
    return personas if caller.personas is None else personas.filter(slug__in=caller.personas)


class PersonaSerializer(serializers.ModelSerializer[Persona]):
    """The public fields of a persona. Prompts are not among them."""

    portrait = serializers.SerializerMethodField(help_text="path of the picture on this server; null without one")

    class Meta:
        model = Persona
        fields = (
            "slug",
            "name",
            "gender",
            "personality",
            "output_style",
            "openai_tool_decision",
            "version",
            "portrait",
        )

    @extend_schema_field(serializers.CharField(allow_null=True))  # type: ignore[untyped-decorator]  # drf_spectacular is not followed
    def get_portrait(self, persona: Persona) -> str | None:
        """The path of the portrait, or None."""
        return reverse("portrait", args=[persona.slug]) if getattr(persona, "has_portrait", False) else None


class PersonaListView(APIView):
    """List the enabled personas that this key may use."""

    @extend_schema(operation_id="personas_list", responses=PersonaSerializer(many=True))  # type: ignore[untyped-decorator]  # drf_spectacular is not followed
    def get(self, request: Request) -> Response:
        """List the enabled personas that this key may use, sorted by slug."""
        columns = [name for name in PersonaSerializer.Meta.fields if name != "portrait"]
        has_portrait = Exists(Portrait.objects.filter(persona=OuterRef("pk")))
        personas = _allowed(request).order_by("slug").only(*columns).annotate(has_portrait=has_portrait)
        shown: list[dict[str, Any]] = PersonaSerializer(personas, many=True).data  # type: ignore[assignment]
        return Response(shown)


class PortraitView(APIView):
    """The picture of a persona."""

    @extend_schema(  # type: ignore[untyped-decorator]  # drf_spectacular is not followed
        operation_id="personas_portrait",
        responses={(200, media_type): OpenApiTypes.BINARY for media_type in PortraitType.values},
    )
    def get(self, request: Request, slug: str) -> HttpResponse:
        """Answer the picture of a persona that this key may use; 404 where there is none."""
        portrait = get_object_or_404(Portrait, persona__in=_allowed(request).filter(slug=slug))
        # The answer depends on the key, so that no cache may keep it for another one.
        return HttpResponse(
            bytes(portrait.data), content_type=portrait.media_type, headers={"Cache-Control": "private, no-store"}
        )

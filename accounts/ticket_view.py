"""Where the "Try it" page gets its ticket."""

from __future__ import annotations

from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_POST

from accounts import tickets


def _ticket(request: HttpRequest, slug: str) -> HttpResponse:
    """``{"ticket", "expires_in"}`` (seconds) for staff who may look at personas. The admin lets nobody cache it."""
    user = request.user
    if not isinstance(user, User) or not user.has_perm(tickets.PERMISSION):
        raise PermissionDenied
    persona = get_object_or_404(apps.get_model("personas.Persona"), slug=slug)
    answer = {
        "ticket": tickets.mint(user.pk, getattr(persona, "slug", slug)),
        "expires_in": tickets.LIFETIME.total_seconds(),
    }
    return JsonResponse(answer)


ticket = require_POST(admin.site.admin_view(_ticket))

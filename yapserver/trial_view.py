"""The view that gives the "Try it" page its ticket."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_POST

from personas.models import Persona
from yapserver import trial_tickets


def _ticket(request: HttpRequest, slug: str) -> HttpResponse:
    """Answer ``{"ticket", "expires_in"}`` (seconds) to staff who may view personas. ``admin_view`` forbids caching."""
    user = request.user
    if not isinstance(user, User) or not user.has_perm(trial_tickets.PERMISSION):
        raise PermissionDenied
    persona = get_object_or_404(Persona, slug=slug)
    ticket = trial_tickets.mint(user.pk, persona.slug)
    return JsonResponse({"ticket": ticket, "expires_in": trial_tickets.LIFETIME.total_seconds()})


ticket = require_POST(admin.site.admin_view(_ticket))

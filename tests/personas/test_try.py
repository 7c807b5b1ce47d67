from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from personas.models import Persona

pytestmark = pytest.mark.django_db


def page(client: Client, persona: Persona) -> str:
    response = client.get(reverse("admin:personas_persona_try", args=[persona.pk]))
    assert response.status_code == 200
    return response.content.decode()


def test_the_page_tries_what_was_saved_and_carries_no_key(operator: Client, persona: Persona) -> None:
    html = page(operator, persona)
    assert f'data-persona="{persona.slug}"' in html
    assert f'data-ticket="{reverse("ticket", args=[persona.slug])}"' in html
    assert "This is the saved version 1 of Ada" in html
    assert "csrfmiddlewaretoken" in html
    assert "personas/try.js" in html
    assert "try." not in html.replace("try.js", "")


def test_a_disabled_persona_cannot_be_tried(operator: Client, persona: Persona) -> None:
    Persona.objects.filter(pk=persona.pk).update(enabled=False)
    html = page(operator, persona)
    assert "is disabled" in html
    assert 'data-do="stop"' not in html


def test_staff_who_may_only_look_can_try(client: Client, persona: Persona) -> None:
    user = User.objects.create_user("staff", is_staff=True)
    client.force_login(user)
    assert client.get(reverse("admin:personas_persona_try", args=[persona.pk])).status_code == 403
    user.user_permissions.set(Permission.objects.filter(codename="view_persona"))
    assert "Ada" in page(client, persona)

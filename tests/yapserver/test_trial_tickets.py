from __future__ import annotations

import re
import time
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core import signing
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from accounts.callers import Caller
from accounts.selectors import find_caller
from personas.models import Persona
from tests.accounts.conftest import DEFAULTS
from yapserver import trial_tickets as tickets
from yapserver.redaction import Redactor

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_static_files(settings: Settings) -> None:
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if not name.startswith("whitenoise.")]


@pytest.fixture
def operator() -> User:
    return User.objects.create_superuser("operator")


@pytest.fixture
def persona() -> Persona:
    return Persona.objects.create(
        slug="ada", name="Ada", gender="female", personality="dry", chat_prompt="You are Ada."
    )


def found(key: str) -> Caller | None:
    assert find_caller(key, DEFAULTS, "hV7tq2mLr9wZc4nBd8fK") is None  # no key of the REST side
    return tickets.find_caller(key, DEFAULTS)


def test_a_ticket_is_a_caller_with_one_persona_and_small_limits(operator: User) -> None:
    caller = found(tickets.mint(operator.pk, "ada"))
    assert caller is not None
    assert (caller.key_id, caller.prefix, caller.personas) == (None, "try", frozenset({"ada"}))
    assert not caller.own_chat_prompt
    assert not caller.own_tool_prompt
    assert caller.limits.connections == tickets.CONNECTIONS
    assert caller.limits.tokens_per_day == tickets.TOKENS_PER_DAY
    assert caller.limits.messages.limit > 0
    assert caller.expires_at is not None
    assert 0 < caller.expires_at - time.time() <= tickets.LIFETIME.total_seconds()


def test_a_ticket_fits_into_a_subprotocol_and_stays_out_of_logs(operator: User) -> None:
    ticket = tickets.mint(operator.pk, "ada-lovelace")
    assert re.fullmatch(r"[A-Za-z0-9._-]+", ticket)
    assert ticket not in Redactor()(f"Sec-WebSocket-Protocol: yap.v1, yap.key.{ticket}")


def test_forged_old_and_foreign_tickets_are_refused(operator: User, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = tickets.mint(operator.pk, "ada")
    other = signing.TimestampSigner(salt="sessions", sep=".").sign_object({"user": operator.pk, "persona": "ada"})
    for bad in (ticket[:-1], ticket + "x", "try.", "try.a.b.c", f"try.{other}", ticket.replace("try.", "try.x", 1)):
        assert found(bad) is None
    assert found(ticket) is not None
    later = time.time() + tickets.LIFETIME.total_seconds() + 1
    monkeypatch.setattr("django.core.signing.time.time", lambda: later)
    assert found(ticket) is None


@pytest.mark.parametrize("change", [{"is_active": False}, {"is_staff": False}, {"is_superuser": False}])
def test_a_ticket_ends_with_its_operators_rights(operator: User, change: dict[str, bool]) -> None:
    ticket = tickets.mint(operator.pk, "ada")
    caller = found(ticket)
    assert caller is not None
    assert caller.operator_id == operator.pk
    assert tickets.operator_may_try(caller)
    User.objects.filter(pk=operator.pk).update(**change)
    assert found(ticket) is None
    assert not tickets.operator_may_try(caller)


def staff(*rights: str) -> User:
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=rights))
    return user


def ask(client: Client, slug: str = "ada") -> Any:
    return client.post(reverse("ticket", args=[slug]))


def test_who_may_look_at_personas_gets_one(client: Client, persona: Persona) -> None:
    client.force_login(staff("view_persona"))
    answer = ask(client)
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    caller = found(answer.json()["ticket"])
    assert caller is not None
    assert caller.personas == frozenset({persona.slug})
    assert ask(client, "nobody").status_code == 404
    assert client.get(reverse("ticket", args=["ada"])).status_code == 405


def test_nobody_else_does(client: Client, persona: Persona) -> None:
    assert ask(client).status_code == 302
    client.force_login(staff("view_apikey"))
    assert ask(client).status_code == 403
    guarded = Client(enforce_csrf_checks=True)
    guarded.force_login(User.objects.create_superuser("root"))
    assert ask(guarded).status_code == 403

"""What becomes of a caller that is connected: looked at once a second, for as long as it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from django.conf import settings
from django.contrib.auth.models import User

from accounts import services
from accounts.callers import Caller
from inference.engines.service import EngineService
from tests.accounts.conftest import DEFAULTS
from tests.fakes.serving import UNLIMITED
from yapserver import trial_tickets
from yapserver.runtime import ServerRuntime


@pytest.fixture
def runtime() -> Iterator[ServerRuntime]:
    made = ServerRuntime(settings.ENV, EngineService([], lambda spec: pytest.fail("no engine is deployed")), "1")
    yield made
    made._lookups.shutdown()


@pytest.mark.django_db
def test_a_ticket_ends_at_its_time_and_the_servers_own_key_never(runtime: ServerRuntime) -> None:
    operator = User.objects.create_superuser("operator")
    caller = trial_tickets.find_caller(trial_tickets.mint(operator.pk, "ada"), DEFAULTS)
    assert caller is not None
    assert runtime._caller_now(caller) is caller
    assert runtime._caller_now(replace(caller, expires_at=time.time() - 0.1)) is None
    assert runtime._caller_now(UNLIMITED) is UNLIMITED


@pytest.mark.django_db
@pytest.mark.parametrize("change", [{"is_active": False}, {"is_staff": False}, {"is_superuser": False}])
def test_a_ticket_ends_with_its_operators_rights(runtime: ServerRuntime, change: dict[str, bool]) -> None:
    operator = User.objects.create_superuser("operator")
    caller = trial_tickets.find_caller(trial_tickets.mint(operator.pk, "ada"), DEFAULTS)
    assert caller is not None
    User.objects.filter(pk=operator.pk).update(**change)
    assert runtime._caller_now(caller) is None


@pytest.mark.django_db
def test_a_key_is_as_its_row_is_now(runtime: ServerRuntime) -> None:
    row, full = services.create_key("customer")
    caller = Caller(row.pk, row.prefix, row.name, DEFAULTS, fingerprint=row.hash)
    now = runtime._caller_now(caller)
    assert now is not None
    assert now.limits.messages.limit == settings.ENV.WS_MAX_MESSAGES_PER_WINDOW
    row.max_messages = 1
    services.save_key(row)
    now = runtime._caller_now(caller)
    assert now is not None
    assert now.limits.messages.limit == 1
    services.revoke_key(row)
    assert runtime._caller_now(caller) is None
    assert full not in repr(now)

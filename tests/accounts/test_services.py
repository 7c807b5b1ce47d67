from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.utils import timezone

from accounts import services
from accounts.keys import hash_key
from accounts.models import ApiKey
from personas.models import Persona

pytestmark = pytest.mark.django_db(transaction=True)
News = list[tuple[str, str]]


def test_only_the_hash_is_kept(news: News) -> None:
    row, full = services.create_key("customer", note="paid")
    stored = ApiKey.objects.values().get(pk=row.pk)
    assert stored["hash"] == hash_key(full)
    assert not any(full.rpartition("_")[2] in str(value) for value in stored.values())
    assert news == [("key", str(row.pk))]


def test_bad_limits_and_names_make_no_key(news: News) -> None:
    for fields in ({"name": ""}, {"name": "x", "max_connections": 0}, {"name": "x", "max_messages": -1}):
        with pytest.raises(ValidationError):
            services.create_key(**fields)
    assert not ApiKey.objects.exists()
    assert news == []


def test_every_change_is_told_after_its_commit(news: News) -> None:
    row, _ = services.create_key("customer")
    news.clear()
    with transaction.atomic():
        row.max_messages = 3
        services.save_key(row)
        assert news == []
    assert news == [("key", str(row.pk))]
    with transaction.atomic():
        services.revoke_key(row)
        transaction.set_rollback(True)
    assert len(news) == 1


def test_revoking_twice_is_once(news: News) -> None:
    row, _ = services.create_key("customer")
    news.clear()
    assert services.revoke_key(row)
    first = row.revoked_at
    assert not services.revoke_key(row)
    assert ApiKey.objects.get().revoked_at == first
    assert len(news) == 1


def test_saving_a_form_that_was_opened_before_changes_neither_secret_nor_revocation() -> None:
    row, _ = services.create_key("customer")
    opened = ApiKey.objects.get()
    services.rotate_key(row, timezone.now() + timedelta(hours=1))
    services.revoke_key(row)
    opened.name = "renamed"
    services.save_key(opened)
    now = ApiKey.objects.get()
    assert (now.name, now.hash, now.revoked_at) == ("renamed", row.hash, row.revoked_at)


def test_rotation_without_time_ends_the_old_secret_and_a_second_one_ends_the_first() -> None:
    row, first = services.create_key("customer")
    services.rotate_key(row, timezone.now() + timedelta(hours=1))
    assert ApiKey.objects.get().previous_hash == hash_key(first)
    services.rotate_key(row)
    now = ApiKey.objects.get()
    assert (now.previous_hash, now.previous_until) == ("", None)


def test_a_revoked_key_stays_revoked() -> None:
    row, _ = services.create_key("customer")
    services.revoke_key(row)
    with pytest.raises(ValueError, match="revoked"):
        services.rotate_key(row)
    with pytest.raises(ValueError, match="issued"):
        services.issue_key(row)


def test_a_persona_that_a_key_is_held_to_cannot_be_deleted() -> None:
    ada = Persona.objects.create(slug="ada", name="Ada", gender="female", personality="dry", chat_prompt="Hi.")
    row, _ = services.create_key("customer", personas=[ada])
    with pytest.raises(models.ProtectedError):
        ada.delete()
    row.personas.clear()
    ada.delete()


@pytest.mark.parametrize(
    "broken",
    [
        {"prefix": "UPPER123"}, {"prefix": "short"}, {"hash": "x"}, {"name": ""}, {"max_connections": 0},
        {"tokens_per_day": 0}, {"max_out": 0}, {"max_messages": -1}, {"previous_hash": "a" * 64},
        {"previous_until": "2030-01-01T00:00:00Z"},
    ],
)  # fmt: skip
def test_the_database_itself_refuses(broken: dict[str, object]) -> None:
    services.create_key("customer")
    with pytest.raises(IntegrityError), transaction.atomic():
        ApiKey.objects.update(**broken)

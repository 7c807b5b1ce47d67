from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from accounts import services
from accounts.keys import hash_key
from accounts.login_attempts import PER_NETWORK_AND_ACCOUNT
from accounts.models import ApiKey, Usage
from personas.models import Persona

LIST = reverse("admin:accounts_apikey_changelist")
ADD = reverse("admin:accounts_apikey_add")
KEY = re.compile(r"yap_[a-z0-9]{8}_[A-Za-z0-9]{43}")
EMPTY = {
    "note": "",
    "expires_at_0": "",
    "expires_at_1": "",
    "allow_own_chat_prompt": "on",
    "allow_own_tool_prompt": "on",
}
PASSWORD = "not-a-secret"
OWN = {"own_password": PASSWORD}

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(client: Client, db: None) -> Client:
    client.force_login(User.objects.create_superuser("operator", password=PASSWORD))
    return client


def change(row: ApiKey) -> str:
    return reverse("admin:accounts_apikey_change", args=(row.pk,))


def delete(row: ApiKey) -> str:
    return reverse("admin:accounts_apikey_delete", args=(row.pk,))


def staff(client: Client, *permissions: str) -> Client:
    user = User.objects.create_user("helper", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return client


def test_a_key_is_shown_once_and_nowhere_else(operator: Client) -> None:
    response = operator.post(ADD, {"name": "customer", **EMPTY, **OWN})
    assert response.status_code == 200
    shown = set(KEY.findall(response.content.decode()))
    assert len(shown) == 1
    full = shown.pop()
    assert ApiKey.objects.get().hash == hash_key(full)
    assert "no-store" in response["Cache-Control"]
    secret = full.rpartition("_")[2]
    assert secret not in str(response.cookies)
    assert secret not in str(dict(operator.session))
    row = ApiKey.objects.get()
    for page in (LIST, change(row), reverse("admin:accounts_apikey_history", args=(row.pk,))):
        content = operator.get(page).content.decode()
        assert row.prefix in content or "history" in page
        assert secret not in content
        assert row.hash not in content
    assert all(secret not in entry.change_message + entry.object_repr for entry in LogEntry.objects.all())


def test_limits_and_personas_are_kept(operator: Client) -> None:
    ada = Persona.objects.create(slug="ada", name="Ada", gender="female", personality="dry", chat_prompt="Hi.")
    fields = {"name": "customer", "max_messages": "3", "message_window_s": "10", "tokens_per_day": "5000"}
    operator.post(ADD, {**EMPTY, **OWN, **fields, "allowed_personas": [str(ada.pk)]})
    row = ApiKey.objects.get()
    assert (row.max_messages, row.message_window_s, row.tokens_per_day, row.max_out) == (3, 10, 5000, None)
    assert list(row.personas.all()) == [ada]
    page = operator.get(change(row)).content.decode()
    assert f'<option value="{ada.pk}" selected>' in page
    operator.post(change(row), {**EMPTY, "name": "customer", "allowed_personas": []})
    row.refresh_from_db()
    assert row.max_messages is None
    assert not row.personas.exists()


def test_bad_values_are_refused_in_the_form(operator: Client) -> None:
    for bad in ({"max_connections": "0"}, {"max_messages": "-1"}, {"tokens_per_day": "many"}, {"name": ""}):
        response = operator.post(ADD, {"name": "customer", **EMPTY, **OWN, **bad})
        assert response.status_code == 200
        assert not KEY.search(response.content.decode())
    assert not ApiKey.objects.exists()


def test_the_form_says_what_empty_means(operator: Client, settings: Settings) -> None:
    page = operator.get(ADD).content.decode()
    assert f"Empty: the server's {settings.ENV.WS_MAX_MESSAGES_PER_WINDOW}. 0 switches this limit off." in page


def test_an_edit_is_told_and_logged(
    operator: Client, news: list[tuple[str, str]], django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    row, _ = services.create_key("customer")
    with django_capture_on_commit_callbacks(execute=True):
        operator.post(change(row), {**EMPTY, "name": "customer", "max_messages": "7"})
    assert news == [("key", str(row.pk))]
    entry = LogEntry.objects.get()
    assert entry.user.get_username() == "operator"
    assert "Messages per window" in entry.get_change_message()


def test_revoking_asks_first(
    operator: Client, news: list[tuple[str, str]], django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    rows = [services.create_key(f"customer {number}")[0] for number in range(3)]
    chosen = {"action": "revoke_selected", "_selected_action": [str(row.pk) for row in rows[:2]]}
    with django_capture_on_commit_callbacks(execute=True):
        page = operator.post(LIST, chosen)
        assert not ApiKey.objects.filter(revoked_at__isnull=False).exists()
        assert "customer 0" in page.content.decode()
        operator.post(LIST, {**chosen, "confirmed": "1"})
    assert set(ApiKey.objects.filter(revoked_at__isnull=False)) == set(rows[:2])
    assert sorted(news) == sorted(("key", str(row.pk)) for row in rows[:2])
    assert LogEntry.objects.filter(change_message="Revoked.").count() == 2


def test_one_key_is_revoked_from_its_page_by_post_alone(operator: Client) -> None:
    row, _ = services.create_key("customer")
    url = change(row).replace("/change/", "/revoke/")
    assert operator.get(url).status_code == 200
    assert ApiKey.objects.get().state() == "active"
    operator.post(url, {"confirmed": "1"})
    assert ApiKey.objects.get().state() == "revoked"
    assert "revoked" in operator.get(change(row)).content.decode()


def test_rotating_asks_for_the_time_and_shows_the_new_secret(operator: Client) -> None:
    row, old = services.create_key("customer")
    chosen = {"action": "rotate_selected", "_selected_action": [str(row.pk)]}
    assert "stays valid until" in operator.post(LIST, chosen).content.decode()
    until = timezone.now().replace(second=0, microsecond=0) + timedelta(hours=3)
    when = {"old_valid_until_0": f"{until:%Y-%m-%d}", "old_valid_until_1": f"{until:%H:%M:%S}"}
    response = operator.post(LIST, {**chosen, **when, **OWN, "confirmed": "1"})
    (new,) = set(KEY.findall(response.content.decode()))
    row.refresh_from_db()
    assert row.hash == hash_key(new)
    assert (row.previous_hash, row.previous_until) == (hash_key(old), until)
    wrong = operator.post(LIST, {**chosen, "old_valid_until_0": "soon", "old_valid_until_1": "", "confirmed": "1"})
    assert not KEY.search(wrong.content.decode())
    row.refresh_from_db()
    assert row.hash == hash_key(new)


def test_filters_and_search(operator: Client) -> None:
    live, _ = services.create_key("living")
    ended, _ = services.create_key("ended", expires_at=timezone.now() - timedelta(1))
    gone, _ = services.create_key("gone")
    services.revoke_key(gone)
    for state, expected in (("active", live), ("expired", ended), ("revoked", gone)):
        shown = operator.get(LIST, {"state": state}).context["cl"].queryset
        assert list(shown) == [expected]
    assert list(operator.get(LIST, {"q": gone.prefix}).context["cl"].queryset) == [gone]


def test_a_secret_is_issued_to_who_knows_the_password(operator: Client) -> None:
    row, _ = services.create_key("customer")
    chosen = {"action": "rotate_selected", "_selected_action": [str(row.pk)], "confirmed": "1"}
    chosen |= {"old_valid_until_0": "", "old_valid_until_1": ""}
    for own in ({}, {"own_password": "wrong"}):
        for url, fields in ((ADD, {"name": "another", **EMPTY}), (LIST, chosen)):
            answer = operator.post(url, {**fields, **own})
            assert answer.status_code == 200
            assert not KEY.search(answer.content.decode())
    assert "This is not your password." in answer.content.decode()
    assert ApiKey.objects.get().hash == row.hash
    # The field is no way around the login's limit: the two wrong ones above were counted.
    for _ in range(PER_NETWORK_AND_ACCOUNT - 2):
        operator.post(ADD, {"name": "another", **EMPTY, "own_password": "wrong"})
    answer = operator.post(ADD, {"name": "another", **EMPTY, **OWN})
    assert "Too many attempts" in answer.content.decode()
    assert not KEY.search(answer.content.decode())


def test_a_form_with_other_errors_costs_no_attempt(operator: Client) -> None:
    for _ in range(PER_NETWORK_AND_ACCOUNT + 1):
        operator.post(ADD, {"name": "", **EMPTY, **OWN})
    assert KEY.search(operator.post(ADD, {"name": "customer", **EMPTY, **OWN}).content.decode())


def test_keys_that_were_never_used_can_be_deleted(
    operator: Client, news: list[tuple[str, str]], django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    ada = Persona.objects.create(slug="ada", name="Ada", gender="female", personality="dry", chat_prompt="Hi.")
    rows = [services.create_key(f"customer {number}", personas=[ada])[0] for number in range(3)]
    used, _ = services.create_key("used")
    old, _ = services.create_key("old")
    recent, _ = services.create_key("recent")
    now = timezone.now()
    ApiKey.objects.filter(pk__in=[used.pk, old.pk, recent.pk]).update(last_used_at=now)
    services.revoke_key(old, now - timedelta(days=91))
    services.revoke_key(recent, now - timedelta(days=89))
    with django_capture_on_commit_callbacks(execute=True):
        assert operator.post(delete(rows[0]), {"post": "yes"}).status_code == 302
    assert ("key", str(rows[0].pk)) in news  # its connections end
    for kept in (used, recent):
        assert operator.post(delete(kept), {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [str(row.pk) for row in (rows[1], used)]}
    assert "it can be revoked only" in operator.post(LIST, chosen).content.decode()
    operator.post(LIST, {**chosen, "post": "yes"})
    assert set(ApiKey.objects.all()) == {rows[1], rows[2], used, old, recent}
    chosen["_selected_action"] = [str(row.pk) for row in (rows[1], old)]
    operator.post(LIST, {**chosen, "post": "yes"})
    assert set(ApiKey.objects.all()) == {rows[2], used, recent}
    assert Persona.objects.filter(pk=ada.pk).exists()


def test_deleting_needs_its_right(client: Client) -> None:
    row, _ = services.create_key("customer")
    helper = staff(client, "view_apikey", "change_apikey")
    assert helper.post(delete(row), {"post": "yes"}).status_code == 403
    helper.post(LIST, {"action": "delete_selected", "_selected_action": [str(row.pk)], "post": "yes"})
    assert ApiKey.objects.exists()


def test_used_keys_cannot_be_deleted_and_usage_not_touched(operator: Client) -> None:
    row, _ = services.create_key("customer")
    ApiKey.objects.update(last_used_at=timezone.now())
    assert operator.post(reverse("admin:accounts_apikey_delete", args=(row.pk,)), {"post": "yes"}).status_code == 403
    Usage.objects.create(period="minute", bucket=timezone.now(), key_prefix=row.prefix, ttft=[0, 4])
    page = operator.get(reverse("admin:accounts_usage_changelist"))
    assert row.prefix in page.content.decode()
    assert operator.get(reverse("admin:accounts_usage_add")).status_code == 403


def test_staff_with_rights_to_personas_alone_sees_no_keys(client: Client) -> None:
    ada = Persona.objects.create(slug="ada", name="Ada", gender="female", personality="dry", chat_prompt="Hi.")
    row, _ = services.create_key("Secret Customer", personas=[ada])
    helper = staff(client, "view_persona", "change_persona", "delete_persona")
    for url in (LIST, ADD, change(row), reverse("admin:accounts_usage_changelist")):
        assert helper.get(url).status_code == 403
    assert "API key" not in helper.get(reverse("admin:index")).content.decode()
    refused = helper.get(reverse("admin:personas_persona_delete", args=(ada.pk,))).content.decode()
    assert "a key that may use only named personas" in refused
    assert "Secret Customer" not in refused
    assert row.prefix not in refused


def test_staff_that_may_look_changes_nothing(client: Client) -> None:
    row, _ = services.create_key("customer")
    helper = staff(client, "view_apikey")
    assert helper.get(change(row)).status_code == 200
    chosen = {"action": "revoke_selected", "_selected_action": [str(row.pk)], "confirmed": "1"}
    helper.post(LIST, chosen)
    for name in ("revoke", "rotate"):
        assert helper.post(change(row).replace("/change/", f"/{name}/"), {"confirmed": "1"}).status_code == 403
    row.refresh_from_db()
    assert row.revoked_at is None
    assert row.previous_until is None

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from accounts import services
from accounts.keys import hash_key
from accounts.models import ApiKey, Usage

pytestmark = pytest.mark.django_db


def run(*args: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command(*args, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_createkey_prints_the_key_alone() -> None:
    out, err = run("createkey", "customer", "--expires", "2099-01-31T12:00", "--max-messages", "3", "--note", "paid")
    row = ApiKey.objects.get()
    assert row.hash == hash_key(out.strip())
    assert out.strip() not in err
    assert (row.name, row.note, row.max_messages) == ("customer", "paid", 3)
    assert row.expires_at == datetime(2099, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize("bad", [["--expires", "soon"], ["--expires", "2099-02-31T12:00"], ["--max-connections", "0"]])
def test_createkey_refuses_in_one_line(bad: list[str]) -> None:
    with pytest.raises(CommandError, match=bad[1] if bad[0] == "--expires" else "max_connections"):
        run("createkey", "customer", *bad)
    assert not ApiKey.objects.exists()


def test_revokekey() -> None:
    rows = [services.create_key("customer")[0] for _ in range(2)]
    with pytest.raises(CommandError, match="nothing was revoked"):
        run("revokekey", rows[0].prefix, "nonesuch")
    assert not ApiKey.objects.filter(revoked_at__isnull=False).exists()
    out, _ = run("revokekey", *(row.prefix for row in rows))
    assert out.count(": revoked") == 2
    assert "was revoked before" in run("revokekey", rows[0].prefix)[0]


def test_rotatekey() -> None:
    row, old = services.create_key("customer")
    out, _ = run("rotatekey", row.prefix, "--keep-old-hours", "2")
    row.refresh_from_db()
    assert (row.hash, row.previous_hash) == (hash_key(out.strip()), hash_key(old))
    services.revoke_key(row)
    for prefix in (row.prefix, "nonesuch"):
        with pytest.raises(CommandError):
            run("rotatekey", prefix)


def test_rollup_usage() -> None:
    Usage.objects.create(period="minute", bucket=timezone.now() - timedelta(days=5), key_prefix="aaaaaaaa", turns=3)
    assert run("rollup_usage")[0].startswith("1 minutes into hours")
    assert (Usage.objects.get().period, Usage.objects.get().turns) == ("hour", 3)
    with pytest.raises(CommandError, match="keep at least"):
        run("rollup_usage", "--keep-minutes", "0")


def test_usage_is_kept_for_as_many_days_as_the_operator_says(settings: Settings) -> None:
    for days in (1, 20, 100):
        Usage.objects.create(
            period="minute", bucket=timezone.now() - timedelta(days=days), key_prefix="aaaaaaaa", turns=days
        )
    run("rollup_usage")
    assert sorted(Usage.objects.values_list("turns", flat=True)) == [1, 20]  # 90 days where nothing is said
    settings.ENV = settings.ENV.model_copy(update={"USAGE_KEEP_DAYS": 7})
    run("rollup_usage")
    assert [row.turns for row in Usage.objects.all()] == [1]


def test_ensure_admin_makes_one_account_once() -> None:
    out, _ = run("ensure_admin")
    password = out.partition("password: ")[2].split()[0]
    admin = User.objects.get(username="admin")
    assert admin.is_superuser
    assert admin.check_password(password)
    assert len(password) >= 20
    assert run("ensure_admin") == ("", "")
    assert User.objects.get().check_password(password)


def test_ensure_admin_lets_other_superusers_and_accounts_be() -> None:
    User.objects.create_user("admin")
    with pytest.raises(CommandError, match="no superuser"):
        run("ensure_admin")
    User.objects.create_superuser("root")
    assert run("ensure_admin") == ("", "")


def test_the_daily_timer_deletes_keys_that_were_revoked_long_ago() -> None:
    now = timezone.now()
    old, recent, active = (services.create_key(name)[0] for name in ("old", "recent", "active"))
    ApiKey.objects.update(last_used_at=now - timedelta(days=100))
    services.revoke_key(old, now - timedelta(days=91))
    services.revoke_key(recent, now - timedelta(days=89))
    out = StringIO()
    call_command("rollup_usage", stdout=out)
    assert "1 revoked keys deleted" in out.getvalue()
    assert set(ApiKey.objects.all()) == {recent, active}

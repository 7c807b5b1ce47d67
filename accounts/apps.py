"""The app of API keys, limits and usage."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Models, admin, services and selectors. Depends on ``personas``, not on engines or sockets."""

    name = "accounts"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Accounts"

    def ready(self) -> None:
        from accounts import checks, openapi  # noqa: F401  # they register themselves

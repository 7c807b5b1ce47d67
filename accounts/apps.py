"""The room of who may use the server: keys, limits, usage."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Models, admin and verbs; knows nothing of engines or sockets."""

    name = "accounts"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Accounts"

    def ready(self) -> None:
        from accounts import checks, openapi  # noqa: F401  # they register themselves

"""The Django app of personas and phrase lists."""

from django.apps import AppConfig


class PersonasConfig(AppConfig):
    """Models, admin and services. Engines and sockets are unknown here."""

    name = "personas"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Personas"

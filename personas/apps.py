"""The room of what people edit about a conversation: personas and phrase lists."""

from django.apps import AppConfig


class PersonasConfig(AppConfig):
    """Models, admin and verbs; knows nothing of engines or sockets."""

    name = "personas"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Personas"

"""The inference room as a Django app. Nothing starts here: ``migrate`` runs this too."""

from django.apps import AppConfig


class InferenceConfig(AppConfig):
    """Registered for its views."""

    name = "inference"

"""Health, readiness, status and metrics."""

from django.urls import path

from inference.http.metrics_view import metrics
from inference.http.views import HealthView, ReadyView, StatusView

urlpatterns = [
    path("healthz", HealthView.as_view(), name="healthz"),
    path("readyz", ReadyView.as_view(), name="readyz"),
    path("status", StatusView.as_view(), name="status"),
    path("metrics", metrics, name="metrics"),
]

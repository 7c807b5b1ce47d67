"""REST routes of this app."""

from django.urls import path

from accounts.views import UsageView

urlpatterns = [path("usage/", UsageView.as_view(), name="usage")]

"""REST addresses of this app."""

from django.urls import path

from personas.views import PersonaListView, PortraitView

urlpatterns = [
    path("personas/", PersonaListView.as_view(), name="personas"),
    path("personas/<slug:slug>/portrait/", PortraitView.as_view(), name="portrait"),
]

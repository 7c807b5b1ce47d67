"""REST addresses of this app."""

from django.urls import path

from personas.views import PersonaListView

urlpatterns = [path("personas/", PersonaListView.as_view(), name="personas")]

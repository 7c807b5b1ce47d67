"""The admin classes of this app."""

from personas.persona_admin import PersonaAdmin
from personas.phrase_admin import PhraseListAdmin

__all__ = ["PersonaAdmin", "PhraseListAdmin"]

"""What the admin shows of this room."""

from personas.persona_admin import PersonaAdmin
from personas.phrase_admin import PhraseListAdmin

__all__ = ["PersonaAdmin", "PhraseListAdmin"]

"""The admin classes of this app."""

from personas.persona_admin import PersonaAdmin
from personas.phrase_admin import PhraseListAdmin
from personas.tool_admin import ToolAdmin, ToolExampleAdmin
from personas.tool_head_admin import ToolHeadAdmin

__all__ = ["PersonaAdmin", "PhraseListAdmin", "ToolAdmin", "ToolExampleAdmin", "ToolHeadAdmin"]

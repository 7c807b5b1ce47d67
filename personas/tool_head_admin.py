"""The admin of the classifier: train, compare with the version in force, accept, bring back, set the threshold."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.admin import ModelAdmin

from personas import tool_services
from personas.tool_models import HeadState, Tool, ToolExample, ToolHead
from personas.upload_form import one_line
from personas.versioned_admin import VersionedAdmin, button


@admin.register(ToolHead)
class ToolHeadAdmin(ModelAdmin):
    """Versions of the tool classifier."""

    list_display = ("__str__", "state_shown", "tools", "recall_shown", "false_alarms_shown", "threshold", "created")
    list_display_links = ("__str__",)
    actions_list = ("train",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).defer("data")

    @admin.display(description="state", ordering="state")
    def state_shown(self, obj: ToolHead) -> str:
        return f"{obj.get_state_display()}: {obj.error}" if obj.error else str(obj.get_state_display())

    @admin.display(description="tools")
    def tools(self, obj: ToolHead) -> str:
        return ", ".join(obj.classes)

    @admin.display(description="recall", ordering="recall")
    def recall_shown(self, obj: ToolHead) -> str:
        return _percent(obj.recall)

    @admin.display(description="false alarms", ordering="false_alarms")
    def false_alarms_shown(self, obj: ToolHead) -> str:
        return _percent(obj.false_alarms)

    @button("Train", "change", "train", icon="model_training")
    def train(self, request: HttpRequest) -> HttpResponse:
        """The page with the button; POST starts a run in a process of its own."""
        if request.method == "POST":
            try:
                head = tool_services.start_training_process(settings.BASE_DIR / "manage.py")
            except ValidationError as error:
                self.message_user(request, one_line(error), messages.ERROR)
                return redirect("admin:personas_toolhead_changelist")
            return redirect("admin:personas_toolhead_change", head.pk)
        counts = [("none", ToolExample.objects.filter(tool=None).count())]
        counts += [(tool.name, tool.examples.count()) for tool in Tool.objects.filter(enabled=True)]
        return VersionedAdmin.page(self, request, "Train the tool classifier", "tool_train", counts=counts)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """One version: its figures beside those in force, the threshold, and the buttons."""
        head = self.get_object(request, object_id)
        if head is None or not self.has_view_permission(request, head):
            raise PermissionDenied
        if request.method == "POST":
            if not self.has_change_permission(request, head):
                raise PermissionDenied
            self._act(request, head)
            return redirect("admin:personas_toolhead_change", head.pk)
        in_force = ToolHead.objects.filter(state=HeadState.IN_FORCE).exclude(pk=head.pk).defer("data").first()
        return VersionedAdmin.page(
            self,
            request,
            f"Tool classifier, {head}",
            "tool_head",
            head=head,
            in_force=in_force,
            rows=_rows(head, in_force),
            running=head.state == HeadState.TRAINING,
            usable=head.state in (HeadState.CANDIDATE, HeadState.RETIRED),
            accept="Accept" if head.state == HeadState.CANDIDATE else "Bring back",
            active=head.state == HeadState.IN_FORCE,
            may_change=self.has_change_permission(request, head),
            back=reverse("admin:personas_toolhead_changelist"),
        )

    def _act(self, request: HttpRequest, head: ToolHead) -> None:
        action = request.POST.get("action")
        try:
            if action == "accept":
                tool_services.accept_head(head.pk)
                self.log_change(request, head, "Put in force.")
                self.message_user(request, f"{head} is in force.".capitalize(), messages.SUCCESS)
            elif action == "retire":
                tool_services.retire_head()
                self.log_change(request, head, "Taken out of force.")
                self.message_user(request, "No classifier is in force.", messages.SUCCESS)
            elif action == "threshold":
                tool_services.set_threshold(head.pk, float(request.POST.get("threshold", "")))
                self.log_change(request, head, f"Threshold {request.POST['threshold']}.")
                self.message_user(request, "The threshold was saved.", messages.SUCCESS)
        except ValidationError as error:
            self.message_user(request, one_line(error), messages.ERROR)
        except ValueError:
            self.message_user(request, "The threshold must be a number.", messages.ERROR)


def _rows(head: ToolHead, other: ToolHead | None) -> list[tuple[str, str, str]]:
    """(name, this version, the version in force) of each figure."""
    names = (("accuracy", "Accuracy"), ("recall", "Recall"), ("false_alarms", "False alarms"))
    rows = [(label, _percent(getattr(head, name)), _percent(getattr(other, name, None))) for name, label in names]
    for key, label in (("examples", "Examples"), ("groups", "Groups of similar lines"), ("seconds", "Seconds")):
        rows.append((label, _count(head.details.get(key)), _count(other.details.get(key)) if other else "–"))
    return rows


def _count(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    return "–" if value is None else str(value)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f} %"

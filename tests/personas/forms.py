"""What a browser would post back: every value of a page's forms, as they stand."""

from __future__ import annotations

from typing import Any

from django.forms import BaseForm
from django.test import Client


def values_of(page: Any) -> dict[str, Any]:
    """The values of an admin change form and of its inlines."""
    context = page.context
    found: dict[str, Any] = {}
    forms: list[BaseForm] = [context["adminform"].form]
    for inline in context["inline_admin_formsets"]:
        forms += [inline.formset.management_form, *inline.formset.forms]
    for form in forms:
        for bound in form:
            value = bound.value()
            if value is not None and value is not False:
                found[bound.html_name] = (
                    [getattr(one, "pk", one) for one in value] if isinstance(value, list) else value
                )
    return found


def save(client: Client, url: str, **changes: Any) -> Any:
    """Opens a form, changes these values (None: takes one out) and saves."""
    values = values_of(client.get(url)) | changes
    return client.post(url, {key: value for key, value in values.items() if value is not None})


def errors_of(page: Any) -> str:
    """All error texts of a form that came back."""
    context = page.context
    if "adminform" not in context:
        return str(context["form"].errors.as_data())
    inlines = [inline.formset for inline in context["inline_admin_formsets"]]
    return str([context["adminform"].form.errors.as_data(), *(f"{f.errors}{f.non_form_errors()}" for f in inlines)])

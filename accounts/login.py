"""The admin's login form, and the password field of forms that issue keys: both count every attempt."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from unfold.forms import AuthenticationForm
from unfold.widgets import UnfoldAdminPasswordWidget

from accounts.authentication import network_of_request
from accounts.login_attempts import TooManyAttempts, count_attempt, forget_attempts


class LoginForm(AuthenticationForm):
    """Counts every attempt before its password is looked at."""

    def clean(self) -> dict[str, Any]:
        """Raises ``ValidationError`` for a wrong password and, whatever the password, after too many attempts."""
        network = network_of_request(self.request) if self.request is not None else ""
        account = str(self.cleaned_data.get("username", ""))
        try:
            count_attempt(network, account)
        except TooManyAttempts as error:
            raise ValidationError(str(error), code="throttled") from None
        cleaned: dict[str, Any] = super().clean()
        forget_attempts(network, account)
        return cleaned


class OwnPasswordField(forms.CharField):
    """Asks operators for their own password: an open session alone does not issue keys."""

    def __init__(self) -> None:
        super().__init__(
            label="Your password",
            strip=False,
            max_length=4096,
            widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "current-password"}),
            help_text="Needed to issue a secret.",
        )


def check_own_password(request: HttpRequest, password: str) -> None:
    """Check the password of the operator who sent a request.

    Raises:
        ValidationError: The password is wrong, or there were too many attempts.
    """
    user: AbstractBaseUser | AnonymousUser = request.user
    network, account = network_of_request(request), user.get_username()
    try:
        count_attempt(network, account)
    except TooManyAttempts as error:
        raise ValidationError(str(error), code="throttled") from None
    if not user.check_password(password):
        raise ValidationError("This is not your password.", code="password")
    forget_attempts(network, account)

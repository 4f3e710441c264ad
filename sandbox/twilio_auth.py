"""Who may use the pretend Twilio."""

import base64
import secrets

from starlette.requests import Request

from sandbox.settings import SandboxSettings
from sandbox.twilio_errors import TwilioError, not_found


class TwilioAuth:
    """Basic auth by the account and any of its tokens."""

    def __init__(self, settings: SandboxSettings) -> None:
        self.account_sid = settings.account_sid
        self._usable = frozenset(
            base64.b64encode(f"{settings.account_sid}:{token}".encode())
            for token in settings.auth_tokens
        )

    def check(self, request: Request, account_sid: str) -> None:
        """Let only the account's owner in.

        Raises:
            TwilioError: The credentials are wrong, or the account is another.
        """
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        given = credentials.strip().encode()
        known = any(secrets.compare_digest(given, usable) for usable in self._usable)
        if scheme.lower() != "basic" or not known:
            raise TwilioError(401, 20003, headers={"WWW-Authenticate": 'Basic realm="Twilio API"'})
        if account_sid != self.account_sid:
            raise not_found(request.url.path)

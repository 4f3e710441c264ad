"""A pretend Google: tokens for a service account, and Text-to-Speech."""

import base64
import re
import secrets
import time
from typing import Any
from urllib.parse import parse_qs

import jwt
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from sandbox.faults import VendorFault
from sandbox.google_account import GoogleAccount
from sandbox.phone.mp3 import silent_mp3
from sandbox.phone.speaking import spoken_seconds
from sandbox.vendors import Vendors

_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# Google's library names Google's own endpoint here, wherever it sends the request.
_TOKEN_AUDIENCE = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address.
_TOKEN_SECONDS = 3600
_MAX_BYTES = 5000
_MP3 = ("MP3", 2)
_LANGUAGES = ("he-IL", "en-US", "en-GB", "ar-XA", "ru-RU", "fr-FR", "es-ES", "de-DE")


class GoogleError(Exception):
    """A refusal in the shape of Google's APIs."""

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = name

    def response(self) -> JSONResponse:
        """The answer as Google gives it."""
        error = {"code": self.status, "message": str(self), "status": self.name}
        return JSONResponse({"error": error}, status_code=self.status)


class GoogleAPI:
    """The pretend Google, for one service account."""

    def __init__(self, account: GoogleAccount, vendors: Vendors) -> None:
        self._account = account
        self._vendors = vendors
        self._tokens: dict[str, float] = {}

    def router(self) -> APIRouter:
        """Tokens at /google/token, speech where Google has it."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/google/token", self.token, methods=["POST"])
        router.add_api_route("/v1/text:synthesize", self.synthesize, methods=["POST"])
        return router

    async def token(self, request: Request) -> Response:
        """Exchange an assertion that the account signed for a token (RFC 7523)."""
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        call = self._vendors.note("google_token", "")
        try:
            self._check(form)
        except jwt.InvalidTokenError as error:
            call.outcome = "refused"
            refused = {"error": "invalid_grant", "error_description": f"Invalid JWT: {error}"}
            return JSONResponse(refused, status_code=400)
        return await self._vendors.serve(
            request, call, self._vendors.latencies.google_token, _refusal, self._new_token
        )

    async def synthesize(self, request: Request) -> Response:
        """A text as MP3 in base64."""
        self._authorize(request)
        asked = await _object(request)
        text = _text(asked)
        latencies = self._vendors.latencies
        return await self._vendors.serve(
            request,
            self._vendors.note("google_speech", text),
            latencies.google_speech + latencies.speech_character * len(text),
            _refusal,
            lambda: JSONResponse(
                {
                    "audioContent": base64.b64encode(
                        silent_mp3(spoken_seconds(text) / _rate(asked), text)
                    ).decode()
                }
            ),
        )

    def _check(self, form: dict[str, list[str]]) -> None:
        if form.get("grant_type") != [_GRANT]:
            raise jwt.InvalidTokenError(f"grant_type must be {_GRANT}")
        claims = self._claims(form.get("assertion", [""])[0], _TOKEN_AUDIENCE)
        if not claims.get("scope"):
            raise jwt.InvalidTokenError("the assertion asks for no scope")

    def _new_token(self) -> Response:
        token = secrets.token_urlsafe(32)
        self._tokens[token] = time.monotonic() + _TOKEN_SECONDS
        return JSONResponse(
            {"access_token": token, "expires_in": _TOKEN_SECONDS, "token_type": "Bearer"}
        )

    def _authorize(self, request: Request) -> None:
        """A token of ours will do, or a JWT that the account signed itself (AIP-4111)."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and self._tokens.get(given, 0) > time.monotonic():
            return
        try:
            claims = self._claims(given, None)
            if claims.get("scope") or str(claims.get("aud")).rstrip("/").startswith("http"):
                return
        except jwt.InvalidTokenError:
            pass
        raise GoogleError(
            401,
            "UNAUTHENTICATED",
            "Request had invalid authentication credentials. Expected OAuth 2 access token.",
        )

    def _claims(self, token: str, audience: str | None) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            self._account.public_key,
            algorithms=["RS256"],
            audience=audience,
            issuer=self._account.email,
            options={"require": ["exp", "iat", "iss"], "verify_aud": audience is not None},
        )
        return claims


def _text(asked: dict[str, Any]) -> str:
    text = _member(asked, "input").get("text")
    if not isinstance(text, str) or not text:
        raise _invalid("Either `input.text` or `input.ssml` must be set; the sandbox has text.")
    if len(text.encode()) > _MAX_BYTES:
        raise _invalid(f"Either `input.text` or `input.ssml` is longer than {_MAX_BYTES} bytes.")
    voice = _member(asked, "voice")
    language, name = voice.get("languageCode"), voice.get("name")
    if language not in _LANGUAGES:
        raise _invalid(f"Voice language {language!r} does not exist.")
    if name and not re.fullmatch(rf"{language}-[A-Za-z0-9]+(-[A-Za-z0-9]+)+", name):
        raise _invalid(f"Voice '{name}' does not exist. Is it misspelled?")
    if _member(asked, "audioConfig").get("audioEncoding") not in _MP3:
        raise _invalid("The sandbox speaks MP3 only: audioConfig.audioEncoding.")
    return text


def _rate(asked: dict[str, Any]) -> float:
    rate = _member(asked, "audioConfig").get("speakingRate") or 1
    if not isinstance(rate, int | float) or not 0.25 <= rate <= 2:
        raise _invalid("`audioConfig.speakingRate` must be from 0.25 to 2.")
    return float(rate)


def _member(asked: dict[str, Any], name: str) -> dict[str, Any]:
    found = asked.get(name)
    return found if isinstance(found, dict) else {}


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError as error:
        raise _invalid("Invalid JSON payload received.") from error
    if not isinstance(body, dict):
        raise _invalid("Invalid JSON payload received.")
    return body


def _invalid(message: str) -> GoogleError:
    return GoogleError(400, "INVALID_ARGUMENT", message)


def _refusal(fault: VendorFault) -> GoogleError:
    if fault.kind == "rate_limited":
        return GoogleError(429, "RESOURCE_EXHAUSTED", "Quota exceeded.")
    return GoogleError(503, "UNAVAILABLE", "The service is currently unavailable.")

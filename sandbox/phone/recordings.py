"""Recordings of calls, and Twilio's REST API for them."""

import asyncio
from datetime import datetime
from email.utils import format_datetime
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, PrivateAttr
from starlette.responses import JSONResponse, Response

from sandbox.faults import FaultBoard
from sandbox.phone.mp3 import silent_mp3
from sandbox.phone.wav import speech, wav_file
from sandbox.settings import SandboxSettings
from sandbox.state import new_sid
from sandbox.twilio_auth import TwilioAuth
from sandbox.twilio_errors import API_VERSION, TwilioError, not_found
from sandbox.vendors import Vendors

_HOUR = 3600.0
_NOT_AUDIO = b"<html><body>This is no recording.</body></html>"


class Recording(BaseModel):
    """A recording as Twilio holds it.

    Attributes:
        seconds: What Twilio says of its length.
        status: Absent when there is none after all.
        fetches: How often the file was sent.
    """

    sid: str
    call_sid: str
    url: str
    created_at: datetime
    seconds: int
    status: Literal["completed", "absent"] = "completed"
    deleted: bool = False
    fetches: int = 0

    _wav: bytes = PrivateAttr(b"")
    _ready_at: float = PrivateAttr(0.0)


class Recordings:
    """What callers said, until it is deleted.

    Attributes:
        callback_seconds: From a recording's end to its recordingStatusCallback.
    """

    def __init__(
        self,
        settings: SandboxSettings,
        base_url: str,
        auth: TwilioAuth,
        faults: FaultBoard,
        vendors: Vendors,
    ) -> None:
        self._base_url = base_url
        self._late_seconds = settings.recording_after
        self.callback_seconds = settings.recording_callback_after
        self._auth = auth
        self._faults = faults
        self._vendors = vendors
        self._recordings: dict[str, Recording] = {}

    def keep(self, call_sid: str, samples: bytes, text: str | None, now: datetime) -> Recording:
        """A new recording, as the faults want it."""
        strike, faults = self._faults.strike, self._faults.now
        sid = new_sid("RE")
        path = f"/{API_VERSION}/Accounts/{self._auth.account_sid}/Recordings/{sid}"
        elsewhere = strike(faults.recording_elsewhere)
        recording = Recording(
            sid=sid,
            call_sid=call_sid,
            url=elsewhere.url if elsewhere else self._base_url + path,
            created_at=now,
            seconds=max(1, round(len(samples) / 16000)),
        )
        odd = strike(faults.recording_content)
        kind = odd.kind if odd else None
        if kind == "hour":
            samples, recording.seconds = speech(_HOUR), int(_HOUR)
        elif kind == "empty":
            samples, recording.seconds = b"", 0
        recording._wav = (
            _NOT_AUDIO if kind == "not_audio" else wav_file(samples, text=text, source=sid)
        )
        if strike(faults.recording_absent):
            recording.status = "absent"
        late = strike(faults.recording_late)
        seconds = late.seconds if late else self._late_seconds
        recording._ready_at = asyncio.get_running_loop().time() + seconds
        self._recordings[sid] = recording
        return recording

    def all(self) -> list[Recording]:
        """Every recording there was, the oldest first."""
        return list(self._recordings.values())

    def clear(self) -> None:
        """Forget everything."""
        self._recordings.clear()

    def router(self) -> APIRouter:
        """The routes below /2010-04-01/Accounts/{sid}/Recordings."""
        path = f"/{API_VERSION}/Accounts/{{account_sid}}/Recordings/{{name}}"
        router = APIRouter(include_in_schema=False)
        router.add_api_route(path, self.fetch, methods=["GET"])
        router.add_api_route(path, self.delete, methods=["DELETE"])
        return router

    async def fetch(self, request: Request, account_sid: str, name: str) -> Response:
        """The file as .wav (also without any ending) or .mp3, or what is known of it as .json."""
        self._auth.check(request, account_sid)
        sid, _, kind = name.partition(".")
        recording = self._found(request, sid)
        if kind == "json":
            return JSONResponse(_json(recording, account_sid))
        call = self._vendors.note("recording", sid)
        ready = asyncio.get_running_loop().time() >= recording._ready_at
        if recording.status == "absent" or not ready or kind not in ("", "wav", "mp3"):
            call.outcome = "refused"
            raise not_found(request.url.path)
        content = recording._wav
        if kind == "mp3":
            content = silent_mp3(recording.seconds, "")
        recording.fetches += 1
        return await self._vendors.serve(
            request,
            call,
            self._vendors.latencies.recording,
            lambda _: TwilioError(500, 20500),
            lambda: Response(content, media_type="audio/mpeg" if kind == "mp3" else "audio/x-wav"),
        )

    async def delete(self, request: Request, account_sid: str, name: str) -> Response:
        """Delete a recording for good."""
        self._auth.check(request, account_sid)
        self._found(request, name.removesuffix(".json")).deleted = True
        return Response(status_code=204)

    def _found(self, request: Request, sid: str) -> Recording:
        recording = self._recordings.get(sid)
        if recording is None or recording.deleted:
            raise not_found(request.url.path)
        return recording


def _json(recording: Recording, account_sid: str) -> dict[str, Any]:
    return {
        "account_sid": account_sid,
        "api_version": API_VERSION,
        "call_sid": recording.call_sid,
        "sid": recording.sid,
        "duration": str(recording.seconds),
        "status": recording.status,
        "channels": 1,
        "source": "RecordVerb",
        "date_created": format_datetime(recording.created_at, usegmt=True),
        "date_updated": format_datetime(recording.created_at, usegmt=True),
        "start_time": format_datetime(recording.created_at, usegmt=True),
        "error_code": None,
        "price": None,
        "price_unit": "USD",
        "uri": f"/{API_VERSION}/Accounts/{account_sid}/Recordings/{recording.sid}.json",
    }

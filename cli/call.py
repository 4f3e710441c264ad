"""`switchboard call`: call as a pretend caller, and listen to what becomes of it."""

import asyncio
import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc.aio
import httpx
from google.protobuf.duration_pb2 import Duration
from switchboard.voice.v1.call_pb2 import Call, CallOutcome, Turn
from switchboard.voice.v1.voice_service_pb2 import GetCallRequest
from switchboard.voice.v1.voice_service_pb2_grpc import VoiceServiceStub

from cli.data_folder import Addresses, DataFolder, NotRunningError
from cli.environment import load_environment
from cli.run_settings import RunSettings
from services.common.grpc_client import open_channel
from services.common.settings import ConfigurationError

if TYPE_CHECKING:
    from switchboard.voice.v1.voice_service_pb2_grpc import VoiceServiceAsyncStub

_POLL_SECONDS = 10
# After the end, until messaging has the last status.
_PATIENCE_SECONDS = 5.0
_BETWEEN = "|"


class CallFailedError(Exception):
    """The call came to no good end; the text says where it stopped."""


def call(
    text: str,
    *,
    wav: Path | None,
    caller: str,
    speed: float,
    timeout: float,
    env_file: Path | None,
) -> int:
    """Print everything that happens in a call; returns the exit code.

    Args:
        text: What the caller says, turn by turn, separated by `|`; nothing between is silence.
        wav: A recording of the caller, for their first turn.
        caller: Their number in E.164.
        speed: How much faster than real speech goes by.
        timeout: Seconds to wait for all of it.
    """
    try:
        turns = _turns(text, wav)
        environment = load_environment(env_file, sandbox_allowed=True)
        settings = RunSettings.load(environment.variables)
        addresses = DataFolder(settings.switchboard_data_dir).addresses()
        if addresses.sandbox is None:
            return _refuse(
                "Switchboard runs with a real configuration, and only the sandbox has callers to"
                " play. Call its number from a telephone instead."
            )
        scenario = {"caller": caller, "turns": turns, "speed": speed}
        asyncio.run(_talk(addresses, addresses.sandbox, scenario, timeout))
    except (FileNotFoundError, ConfigurationError, CallFailedError, NotRunningError) as error:
        return _refuse(f"{error}")
    except KeyboardInterrupt:
        return 130
    return 0


def _turns(text: str, wav: Path | None) -> list[dict[str, str]]:
    turns = [{"text": said.strip()} for said in text.split(_BETWEEN)] if text.strip() else []
    if wav:
        try:
            content = base64.b64encode(wav.read_bytes()).decode()
        except OSError as error:
            raise CallFailedError(f"{wav} can't be read: {error.strerror}") from None
        turns.insert(0, {"wav": content})
    if not turns:
        raise CallFailedError(
            'There is nothing to say. Like this: make call TEXT="Hello | How much is it?",'
            " or with a recording: make call WAV=hello.wav"
        )
    return turns


def _refuse(sentence: str) -> int:
    print(sentence if sentence.endswith(".") else f"{sentence}.")
    return 1


async def _talk(
    addresses: Addresses, sandbox: str, scenario: dict[str, Any], seconds: float
) -> None:
    # The time is limited for the call as a whole.
    async with (
        open_channel(addresses.grpc, addresses.grpc_token) as channel,
        httpx.AsyncClient(base_url=sandbox, timeout=None, trust_env=False) as client,  # noqa: S113
    ):
        voice: VoiceServiceAsyncStub = VoiceServiceStub(channel)
        try:
            async with asyncio.timeout(seconds):
                begun = await _ask(client, "POST", "/sandbox/calls", json=scenario)
                address = f"/sandbox/calls/{begun['sid']}"
                ended = await _follow(client, voice, address, begun["sid"])
                _report(await _stored(voice, begun["sid"]))
        except TimeoutError:
            raise CallFailedError(
                f"After {seconds:g} s the call still goes on. The logs may say why"
            ) from None
        except grpc.aio.AioRpcError as error:
            raise CallFailedError(
                f"messaging answered {error.code().name}: {error.details()}"
            ) from None
    if ended["error_code"]:
        raise CallFailedError(
            f"The caller heard an application error, Twilio's {ended['error_code']}"
        )


async def _ask(client: httpx.AsyncClient, method: str, path: str, **options: Any) -> Any:
    try:
        response = await client.request(method, path, **options)
    except httpx.HTTPError as error:
        raise CallFailedError(f"the sandbox doesn't answer: {error}") from None
    if response.is_error:
        said = response.json().get("detail") if response.is_client_error else response.text
        if isinstance(said, list):
            said = "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in said)
        raise CallFailedError(f"the sandbox refused: {said}")
    return response.json()


async def _follow(
    client: httpx.AsyncClient, voice: "VoiceServiceAsyncStub", address: str, sid: str
) -> Any:
    """Print the timeline as it grows; returns the call once it has ended."""
    known, understood = 0, 0
    while True:
        parameters = {"after": known, "wait": _POLL_SECONDS}
        news = await _ask(client, "GET", f"{address}/timeline", params=parameters)
        for entry in news:
            if entry["gap_ms"] is not None:
                understood = await _understood(voice, sid, understood)
            if line := _line(entry):
                print(f"{entry['ms']:>7,} ms  {line}", flush=True)
        known += len(news)
        if any(entry["kind"] == "ended" for entry in news):
            return await _ask(client, "GET", address)


def _line(entry: dict[str, Any]) -> str | None:
    """An entry in words; None when it says nothing to a person."""
    text, seconds = entry["text"], entry["seconds"]
    match entry["kind"]:
        case "ringing":
            return f"{text} calls"
        case "webhook":
            status = entry["status"] or "nothing"
            path = urlsplit(entry["url"]).path
            return f"{path} answered {status} after {round(seconds * 1000):,} ms"
        case "playing" | "saying":
            gap = entry["gap_ms"]
            waited = f", {gap:,} ms after the caller's turn" if gap is not None else ""
            how = "hears" if entry["kind"] == "playing" else "hears Twilio's voice"
            return f"{how} ({seconds:.1f} s{waited}): {text or entry['url']}"
        case "beep":
            return "hears a beep"
        case "pausing":
            return f"hears nothing for {seconds:g} s"
        case "speaking":
            return f"says ({seconds:.1f} s): {text}"
        case "silent":
            return f"says nothing for {seconds:g} s"
        case "pressing":
            return f"presses {text}"
        case "dialing":
            return f"is put through to {text}"
        case "dialed":
            return f"{text}: {entry['status']}"
        case "error":
            return f"error {entry['code']}: {text}"
        case "hung_up":
            return f"the {text} hangs up"
        case "ended":
            return f"the call has ended after {seconds:.1f} s: {entry['status']}"
    return None


async def _understood(voice: "VoiceServiceAsyncStub", sid: str, known: int) -> int:
    """Print what was understood after turn `known`; returns the last turn that was."""
    found = (await voice.GetCall(GetCallRequest(id=sid))).call
    for turn in found.turns:
        if turn.number > known and turn.transcript:
            print(f"{'':>10}  understood: {turn.transcript}", flush=True)
            known = turn.number
    return known


async def _stored(voice: "VoiceServiceAsyncStub", sid: str) -> Call:
    """The call as messaging has it, once it knows that it has ended, and what came of it."""
    for _ in range(int(_PATIENCE_SECONDS * 10)):
        found = (await voice.GetCall(GetCallRequest(id=sid))).call
        if found.HasField("ended_at") and found.outcome:
            break
        await asyncio.sleep(0.1)
    return found


def _report(found: Call) -> None:
    for turn in found.turns:
        print(f"turn {turn.number}: {_stages(turn)}")
    outcome = CallOutcome.Name(found.outcome).removeprefix("CALL_OUTCOME_").lower()
    print(f"outcome: {outcome.replace('unspecified', 'none yet')}, kept as {found.id}")


def _stages(turn: Turn) -> str:
    timings = turn.timings
    stages = {
        "fetched": timings.fetch,
        "transcribed": timings.transcribe,
        "first sentence": timings.first_sentence,
        "first audio": timings.first_audio,
        "gap": timings.gap,
    }
    took = [
        f"{name} {_milliseconds(value):,} ms"
        for name, value in stages.items()
        if value != Duration()
    ]
    parts = f"{len(turn.answer)} sentences, {sum(part.played for part in turn.answer)} heard"
    return ", ".join([parts, *took, *([turn.problem] if turn.problem else [])])


def _milliseconds(value: Duration) -> int:
    return round(value.ToTimedelta().total_seconds() * 1000)

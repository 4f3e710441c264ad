"""What can be played to a caller now: Twilio ends a call when it can't fetch what it is to play."""

import asyncio
from collections.abc import Callable

from switchboard.voice.v1 import script_pb2

from services.common.errors import UnavailableError
from services.webhook.audio_cache import AudioCache


class Playable:
    """Sees to it that callers are played only what is there.

    Args:
        cache: Has each file afterwards, so that Twilio doesn't wait for the store.
        connected: Whether the store can be asked. Otherwise nothing is played, not even from
            memory: another replica may be asked for the file.
        timeout_seconds: For finding all files of a script.
    """

    def __init__(
        self, cache: AudioCache, connected: Callable[[], bool], *, timeout_seconds: float = 1.0
    ) -> None:
        self._cache = cache
        self._connected = connected
        self._timeout_seconds = timeout_seconds

    async def only(self, script: script_pb2.Script) -> script_pb2.Script:
        """The script; the provider says what can't be played."""
        steps = [step for step in script.steps if step.HasField("play")]
        found = await asyncio.gather(*(self._is_there(step.play.audio_id) for step in steps))
        for step, is_there in zip(steps, found, strict=True):
            # Without its words a file is the only chance to hear them.
            if not is_there and step.play.HasField("words"):
                step.say.CopyFrom(step.play.words)
        return script

    async def _is_there(self, audio_id: str) -> bool:
        if not self._connected():
            return False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._cache.get(audio_id) is not None
        except (UnavailableError, TimeoutError):
            return False

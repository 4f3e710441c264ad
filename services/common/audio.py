"""Rendered speech in JetStream's object store: messaging writes it, the edge reads it."""

import asyncio
import base64
import hashlib
import re
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import ObjectInfo, ObjectStoreConfig
from nats.js.errors import (
    BadObjectMetaError,
    BucketNotFoundError,
    NotFoundError,
    ObjectNotFoundError,
)
from nats.js.object_store import ObjectStore

from services.common.errors import UnavailableError

T = TypeVar("T")

BUCKET: Final = "AUDIO"
AUDIO_ID: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
"""What a file is named by: the SHA-256 of what it was made from, in hexadecimal."""

_STREAM = f"OBJ_{BUCKET}"
_DIGEST = "SHA-256="


@dataclass(frozen=True, slots=True)
class BucketConfig:
    """What whoever writes wants of the bucket.

    Attributes:
        ttl: Age at which files go.
        replicas: Copies of each file.
    """

    ttl: timedelta
    replicas: int


class AudioBucket:
    """Audio files by their id.

    Args:
        client: May still be connecting.
        config: Creates the bucket, or brings its age limit up to date, at the first use. None for
            who only reads: a bucket that isn't there has no files.
        timeout_seconds: For reading or writing one file.
    """

    def __init__(
        self,
        client: Client,
        *,
        config: BucketConfig | None = None,
        timeout_seconds: float = 5.0,
    ) -> None:
        self._client = client
        self._config = config
        self._timeout_seconds = timeout_seconds
        self._bucket: ObjectStore | None = None

    async def get(self, audio_id: str) -> bytes | None:
        """A file; None when there is none with this id.

        Raises:
            UnavailableError: The store doesn't answer.
        """
        return await self._run(self._get(audio_id))

    async def has(self, audio_id: str) -> bool:
        """Whether there is such a file, and will be for a while.

        One in the last quarter of its life counts as gone, so that it is stored anew before
        somebody who was told of it asks in vain.

        Raises:
            UnavailableError: The store doesn't answer.
        """
        return await self._run(self._has(audio_id))

    async def put(self, audio_id: str, content: bytes) -> None:
        """Store a file, in the place of any there was; on disk when it returns.

        Raises:
            UnavailableError: The store doesn't answer.
            ValueError: That is no id.
        """
        if not AUDIO_ID.fullmatch(audio_id):
            raise ValueError("an audio id is 64 hexadecimal digits in lower case")
        await self._run(self._put(audio_id, content))

    async def _get(self, audio_id: str) -> bytes | None:
        # A file that is stored anew meanwhile loses its old chunks: look at it once more.
        for _ in range(2):
            info = await self._info(audio_id)
            if info is None:
                return None
            content = await self._chunks(info)
            if content is not None:
                return content
        return None

    async def _chunks(self, info: ObjectInfo) -> bytes | None:
        """The content; None when some of it is gone.

        `ObjectStore.get` would wait for that in vain, and for each file it creates a consumer.
        """
        js = self._client.jetstream()
        subject = f"$O.{BUCKET}.C.{info.nuid}"
        parts: list[bytes] = []
        sequence = 0
        for _ in range(info.chunks or 0):
            try:
                part = await js.get_msg(_STREAM, seq=sequence + 1, subject=subject, next=True)
            except NotFoundError:
                return None
            sequence = part.seq or 0
            parts.append(part.data or b"")
        content = b"".join(parts)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
        return content if info.digest == _DIGEST + digest else None

    async def _has(self, audio_id: str) -> bool:
        info = await self._info(audio_id)
        if info is None:
            return False
        if self._config is None or info.mtime is None:
            return True
        age = datetime.now(UTC) - datetime.fromisoformat(info.mtime)
        return age < self._config.ttl * 0.75

    async def _put(self, audio_id: str, content: bytes) -> None:
        bucket = await self._opened()
        await bucket.put(audio_id, content)

    async def _info(self, audio_id: str) -> ObjectInfo | None:
        if not AUDIO_ID.fullmatch(audio_id):
            return None
        try:
            bucket = await self._opened()
            return await bucket.get_info(audio_id)
        except (BucketNotFoundError, ObjectNotFoundError, BadObjectMetaError):
            return None

    async def _opened(self) -> ObjectStore:
        if self._bucket is None:
            js = self._client.jetstream()
            if self._config is not None:
                await _ensure(js, self._config)
            self._bucket = await js.object_store(BUCKET)
        return self._bucket

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if not self._client.is_connected:
            work.close()
            raise UnavailableError("the store of audio is not connected")
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await work
        except (nats.errors.Error, OSError, TimeoutError) as error:
            # Somebody may have deleted the bucket.
            self._bucket = None
            raise UnavailableError(f"the store of audio failed: {type(error).__name__}") from error


async def _ensure(js: JetStreamContext, config: BucketConfig) -> None:
    ttl = config.ttl.total_seconds()
    try:
        found = (await js.stream_info(_STREAM)).config
    except NotFoundError:
        await js.create_object_store(
            BUCKET, config=ObjectStoreConfig(ttl=ttl, replicas=config.replicas)
        )
        return
    if found.max_age != ttl or found.num_replicas != config.replicas:
        await js.update_stream(found.evolve(max_age=ttl, num_replicas=config.replicas))

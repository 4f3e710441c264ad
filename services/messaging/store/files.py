"""Files in JetStream's object store, which replicas share, each under the hash of its content."""

import asyncio
import hashlib
import io
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import nats.errors
import structlog
from nats.aio.client import Client
from nats.js.api import ObjectStoreConfig
from nats.js.errors import (
    BadObjectMetaError,
    BucketNotFoundError,
    ObjectNotFoundError,
)
from nats.js.object_store import ObjectStore
from sqlalchemy import select

from services.common.errors import UnavailableError
from services.messaging.ports.clock import Clock
from services.messaging.ports.media import File, StoredFile
from services.messaging.store.bulk import insert_many
from services.messaging.store.database import Database
from services.messaging.store.message_models import MediaRow

log = structlog.get_logger(__name__)

T = TypeVar("T")

BUCKET: Final = "MEDIA"
_STREAM: Final = f"OBJ_{BUCKET}"
UNKNOWN_TYPE: Final = "application/octet-stream"

# What WhatsApp knows (Meta, Cloud API, "Supported media types") and no browser runs.
_SAFE_TYPES: Final = frozenset(
    {
        "image/jpeg", "image/png", "image/webp", "image/gif",
        "audio/aac", "audio/amr", "audio/mp4", "audio/mpeg", "audio/ogg", "audio/opus",
        "video/mp4", "video/3gpp",
        "application/pdf", "text/plain", "text/vcard", "text/x-vcard", "text/csv",
        "application/msword", "application/vnd.ms-excel", "application/vnd.ms-powerpoint",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    }
)  # fmt: skip


class ObjectMediaStore:
    """`MediaStore` on JetStream's object store, with a row for each file in the database.

    Args:
        client: May still be connecting.
        replicas: Copies of each file.
        timeout_seconds: For writing or reading one file.
    """

    def __init__(
        self,
        database: Database,
        client: Client,
        *,
        clock: Clock,
        replicas: int,
        timeout_seconds: float = 30.0,
    ) -> None:
        self._database = database
        self._client = client
        self._clock = clock
        self._replicas = replicas
        self._timeout_seconds = timeout_seconds
        self._bucket: ObjectStore | None = None

    async def put(self, file: File) -> StoredFile:
        """Store a file, once however often it comes."""
        stored = StoredFile(
            id=hashlib.sha256(file.content).hexdigest(),
            content_type=safe_type(file.content_type),
            size_bytes=len(file.content),
        )
        await self._run(self._put(stored.id, file.content))
        async with self._database.write() as connection:
            await insert_many(
                connection,
                MediaRow,
                [
                    {
                        "id": stored.id,
                        "content_type": stored.content_type,
                        "size_bytes": stored.size_bytes,
                        "created_at": self._clock(),
                    }
                ],
            )
        return stored

    async def read(self, file_id: str) -> File | None:
        """A file; None when there is none with this id."""
        async with self._database.read() as connection:
            content_type = await connection.scalar(
                select(MediaRow.content_type).where(MediaRow.id == file_id)
            )
        if content_type is None:
            return None
        content = await self._run(self._get(file_id))
        if content is None:
            log.error("a file is missing from the object store", file_id=file_id)
            return None
        return File(content, content_type)

    async def _put(self, file_id: str, content: bytes) -> None:
        bucket = await self._opened()
        try:
            await bucket.get_info(file_id)
        except (ObjectNotFoundError, BadObjectMetaError):
            await bucket.put(file_id, content)

    async def _get(self, file_id: str) -> bytes | None:
        bucket = await self._opened()
        content = io.BytesIO()
        try:
            await bucket.get(file_id, writeinto=content)
        except ObjectNotFoundError:
            return None
        return content.getvalue()

    async def _opened(self) -> ObjectStore:
        if self._bucket is None:
            js = self._client.jetstream()
            try:
                bucket = await js.object_store(BUCKET)
            except BucketNotFoundError:
                config = ObjectStoreConfig(replicas=self._replicas)
                bucket = await js.create_object_store(BUCKET, config=config)
            found = (await js.stream_info(_STREAM)).config
            if found.num_replicas != self._replicas:
                await js.update_stream(found.evolve(num_replicas=self._replicas))
            self._bucket = bucket
        return self._bucket

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run what needs the broker.

        Raises:
            UnavailableError: The broker isn't there or took too long.
        """
        if not self._client.is_connected:
            work.close()
            raise UnavailableError("the object store is not connected")
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await work
        except (nats.errors.Error, OSError, TimeoutError) as error:
            # Somebody may have deleted the bucket.
            self._bucket = None
            raise UnavailableError(f"the object store failed: {type(error).__name__}") from error


def safe_type(content_type: str) -> str:
    """The type if browsers may be given it, without parameters; else one that they save."""
    plain = content_type.partition(";")[0].strip().lower()
    return plain if plain in _SAFE_TYPES else UNKNOWN_TYPE

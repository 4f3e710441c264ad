"""The rules for a file that is to be sent, which only its host can answer."""

from typing import Final

from services.common.errors import MediaUnreadableError, PolicyRefusedError, UnavailableError
from services.messaging.domain.message import Media
from services.messaging.domain.whatsapp_media import max_bytes
from services.messaging.ports.media import FileFacts, MediaInspector, MediaUnobtainableError

MEDIA_UNOBTAINABLE: Final = "media_unobtainable"
MEDIA_UNREADABLE: Final = "media_unreadable"
MEDIA_TYPE: Final = "media_type"
MEDIA_SIZE: Final = "media_size"


async def inspected(inspector: MediaInspector, url: str, field: str) -> Media:
    """A file with its true type.

    Raises:
        PolicyRefusedError: The provider couldn't fetch it, or WhatsApp doesn't take it.
        MediaUnreadableError: Its host doesn't answer now.
    """
    try:
        facts = await inspector.inspect(url)
    except MediaUnobtainableError as error:
        raise PolicyRefusedError(
            MEDIA_UNOBTAINABLE, f"{field}: the provider could not fetch the file: {error}"
        ) from error
    except UnavailableError as error:
        raise MediaUnreadableError(
            MEDIA_UNREADABLE,
            f"{field}: the file can't be read now: {error}; try again later",
        ) from error
    refusal = _refusal(facts, field)
    if refusal is not None:
        raise refusal
    return Media(url, facts.content_type)


def _refusal(facts: FileFacts, field: str) -> PolicyRefusedError | None:
    if not facts.content_type:
        return PolicyRefusedError(
            MEDIA_TYPE, f"{field}: its host doesn't say what the file is; send a Content-Type there"
        )
    most = max_bytes(facts.content_type)
    if most is None:
        return PolicyRefusedError(
            MEDIA_TYPE,
            f"{field}: the file is {facts.content_type} by its Content-Type, which WhatsApp "
            "doesn't take",
        )
    if facts.size_bytes is not None and facts.size_bytes > most:
        return PolicyRefusedError(
            MEDIA_SIZE,
            f"{field}: the file has {facts.size_bytes} bytes; WhatsApp takes at most {most} of "
            f"{facts.content_type}",
        )
    return None

"""Files elsewhere: what fetches them from Twilio, and ones that a test says are there."""

from typing import Any

from pydantic import SecretStr

from services.messaging.ports.media import FileFacts, MediaUnobtainableError
from services.messaging.providers.twilio.media import TwilioMedia
from tests.support.sandbox import ACCOUNT_SID, AUTH_TOKEN

PDF = FileFacts("application/pdf", 1000)


class KnownFiles:
    """`MediaInspector` that knows some addresses, by default one of a PDF; others aren't there.

    Attributes:
        files: What their hosts say of files by their address, or what asking for them fails with.
        asked: The addresses that were asked for, in order.
    """

    def __init__(self, files: dict[str, FileFacts | Exception] | None = None) -> None:
        self.files = {"https://files.example.com/plan.pdf": PDF} if files is None else files
        self.asked: list[str] = []

    async def inspect(self, url: str) -> FileFacts:
        """What was told of the address."""
        self.asked.append(url)
        found = self.files.get(url, MediaUnobtainableError("the answer was HTTP 404"))
        if isinstance(found, Exception):
            raise found
        return found


def source(base_url: str, **limits: Any) -> TwilioMedia:
    """What fetches files, pointed at a pretend Twilio."""
    return TwilioMedia(
        account_sid=ACCOUNT_SID, auth_token=SecretStr(AUTH_TOKEN), base_url=base_url, **limits
    )

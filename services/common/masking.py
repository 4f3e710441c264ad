"""Keeping out of logs what is nobody else's business, wherever it tries to come in.

Our own lines hold fixed words and ids. But an exception may quote what a contact wrote, and a
library what it was given: so of exceptions only those whose texts are ours are quoted, and in
whatever is left numbers, signatures and secrets are masked.
"""

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import SecretStr
from structlog.typing import EventDict, ExcInfo, WrappedLogger

from services.common.errors import SwitchboardError
from services.common.settings import CommonSettings, split_list

MASK: Final = "***"

_PHONE: Final = re.compile(
    # With a plus in any spelling; without one nine digits or more, as WhatsApp writes them. Parts
    # of ids and of versions are left.
    r"\+[0-9](?:[ ().-]{0,2}[0-9]){6,18}|(?<![0-9A-Za-z_.-])[0-9]{9,20}(?![0-9A-Za-z_-])",
    re.ASCII,
)
# X-Twilio-Signature: SHA-1 in Base64.
_SIGNATURE: Final = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{27}=(?!=)", re.ASCII)
_SHORTEST_SECRET: Final = 6
# The text of these is written by us or by the operating system.
_QUOTABLE: Final = (SwitchboardError, OSError)
_AS_THEY_ARE: Final = frozenset({"timestamp", "level", "logger", "service", "request_id"})


def secrets_of(settings: CommonSettings) -> Sequence[str]:
    """Every secret that the settings hold, the longest first; of addresses the passwords too."""
    found: set[str] = set()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            found |= set(_parts(value.get_secret_value()))
    return sorted((one for one in found if len(one) >= _SHORTEST_SECRET), key=len, reverse=True)


def _parts(secret: str) -> Iterator[str]:
    for part in split_list(secret):
        yield part
        # In name=secret, and scheme://user:secret@host.
        yield part.partition("=")[2]
        if "://" in part and "@" in part:
            shown = part.partition("://")[2].rpartition("@")[0]
            # A user's name is a plain word, such as `messaging`; alone it is a token.
            yield shown.partition(":")[2] or shown


class Masking:
    """A processor of structlog, the last before the renderer."""

    def __init__(self, secrets: Sequence[str]) -> None:
        patterns = [_PHONE.pattern, _SIGNATURE.pattern, *map(re.escape, secrets)]
        self._pattern = re.compile("|".join(patterns), re.ASCII)

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
        """The line with every text in it masked."""
        return {
            key: value if key in _AS_THEY_ARE else self._masked(value)
            for key, value in event.items()
        }

    def text(self, text: str) -> str:
        """A text without what is to be masked."""
        return self._pattern.sub(MASK, text)

    def _masked(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case bool() | int() | float() | None:
                return value
            case Mapping():
                return {str(key): self._masked(one) for key, one in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self._masked(one) for one in value]
        return self.text(repr(value))


def first_line(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """asyncio's lines end with the task that failed, and that with its error's text."""
    if event.get("logger") == "asyncio":
        event["event"] = str(event["event"]).partition("\n")[0]
    return event


def format_exception(exc_info: ExcInfo) -> str:
    """A traceback in which only those errors are quoted whose text can hold nothing personal."""
    return "\n".join(_chain(exc_info[1], set()))


def _chain(error: BaseException | None, seen: set[int]) -> Iterator[str]:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _chain(before, seen)
        yield "and then:"
    yield "Traceback (most recent call last):"
    yield "".join(traceback.format_tb(error.__traceback__)).rstrip("\n")
    yield _named(error)
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield "of which one is:"
            yield from _chain(one, seen)


def _named(error: BaseException) -> str:
    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    return f"{kind}: {error}" if isinstance(error, _QUOTABLE) else kind

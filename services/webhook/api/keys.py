"""Who may use the API."""

import hmac
import re
from collections.abc import Iterable
from hashlib import sha256

from services.common.settings import split_list

_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
_KEY = re.compile(r"[!-~]{12,256}")


def parse_api_keys(value: str) -> tuple[tuple[str, str], ...]:
    """Names and keys in `name:key,name2:key2`. A name may have several keys, to replace one.

    Raises:
        ValueError: An entry is malformed. The text doesn't show it.
    """
    pairs = []
    for number, entry in enumerate(split_list(value), 1):
        name, _, key = entry.partition(":")
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"entry {number} must be name:key, the name of 1 to 32 letters, digits, - or _"
            )
        if not _KEY.fullmatch(key):
            raise ValueError(
                f"entry {number} needs after its name a key of 12 to 256 printable ASCII characters"
                " without spaces"
            )
        pairs.append((name, key))
    if not pairs:
        raise ValueError("has no entry; leave it unset for no API")
    if len({key for _, key in pairs}) < len(pairs):
        raise ValueError("two entries have the same key, so that nobody could tell them apart")
    return tuple(pairs)


class ApiKeys:
    """The configured keys."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._digests = [(name, sha256(key.encode()).digest()) for name, key in pairs]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._digests)

    def name_of(self, shown: bytes) -> str | None:
        """The name that `shown` belongs to; takes equally long whichever it is."""
        digest = sha256(shown).digest()
        names = [name for name, known in self._digests if hmac.compare_digest(digest, known)]
        return names[0] if names else None

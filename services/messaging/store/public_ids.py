"""The ids that the outside sees."""

import hashlib
from uuid import uuid4


def new_public_id() -> str:
    """An id for the outside: it tells nothing and can't be guessed."""
    return uuid4().hex


def received_id(provider: str, provider_message_id: str) -> str:
    """Likewise for a message that was received: the same whenever it is stored again.

    Whoever could guess it would have to know the provider's own id, which is random.
    """
    return hashlib.sha256(f"{provider}:{provider_message_id}".encode()).hexdigest()[:32]

"""A service account for the pretend Google, with a key of its own."""

import json
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

_EMAIL = "speech@sandbox.iam.gserviceaccount.com"


class GoogleAccount:
    """A service account; its key is made when it is first asked for, unless one is given."""

    def __init__(self, given: str | None, base_url: str) -> None:
        self._given = given
        self._base_url = base_url

    @cached_property
    def json(self) -> str:
        """What Google's console would give."""
        return self._given or new_service_account(self._base_url)

    @cached_property
    def email(self) -> str:
        """The address by which the account signs."""
        return str(json.loads(self.json)["client_email"])

    @cached_property
    def public_key(self) -> bytes:
        """The key that its signatures are checked with, as PEM."""
        private = json.loads(self.json)["private_key"].encode()
        key = load_pem_private_key(private, password=None).public_key()
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def new_service_account(base_url: str) -> str:
    """The JSON that Google's console would give, its tokens fetched from the sandbox.

    Args:
        base_url: The sandbox's origin.
    """
    key = generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "sandbox",
            "private_key_id": "sandbox",
            "private_key": pem.decode(),
            "client_email": _EMAIL,
            "client_id": "1",
            "token_uri": f"{base_url}/google/token",
        }
    )

"""Access to Google's APIs by a service account, without blocking."""

import asyncio
import time
from typing import Final

import aiohttp
from google.auth import jwt
from google.oauth2.service_account import Credentials

from services.common.errors import UnavailableError

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"

_GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# What Google's own library names as the audience, wherever it sends the request.
_AUDIENCE: Final = "https://oauth2.googleapis.com/token"
_ASSERTION_SECONDS: Final = 3600
_RENEW_BEFORE_SECONDS: Final = 60.0


class GoogleToken:
    """A token that is fetched when it is needed and kept while it holds.

    It is the JWT grant of RFC 7523. Google's library has it for threads only, in which it would
    outlast a cancelled call or hold up the process's end.

    Args:
        credentials: Whose key signs.
        token_uri: Where tokens are fetched; the service account says it.
        session: Its owner closes it.
        timeout_seconds: For fetching a token.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        token_uri: str,
        session: aiohttp.ClientSession,
        timeout_seconds: float,
    ) -> None:
        self._credentials = credentials
        self._token_uri = token_uri
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._fetching = asyncio.Lock()
        self._token = ""
        self._ends = 0.0

    async def get(self) -> str:
        """A token that holds for a while.

        Raises:
            UnavailableError: There is none now.
        """
        async with self._fetching:
            if time.monotonic() >= self._ends - _RENEW_BEFORE_SECONDS:
                await self._fetch()
            return self._token

    def forget(self, token: str) -> None:
        """Don't use a token again that was refused."""
        if token == self._token:
            self._ends = 0.0

    async def _fetch(self) -> None:
        started = time.monotonic()
        try:
            async with self._session.post(
                self._token_uri,
                data={"grant_type": _GRANT_TYPE, "assertion": self._assertion()},
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    raise UnavailableError(f"Google gave no token: HTTP {response.status}")
                # Some servers don't say that it is JSON.
                answer = await response.json(content_type=None)
            token, lasts = answer["access_token"], float(answer.get("expires_in", 0))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(f"Google gave no token: {type(error).__name__}") from error
        except (ValueError, TypeError, KeyError, AttributeError):
            # The answer may hold a token: none of it is shown.
            raise UnavailableError("Google gave no token: its answer is malformed") from None
        if not isinstance(token, str) or not token:
            raise UnavailableError("Google gave no token: its answer is malformed")
        self._token, self._ends = token, started + lasts

    def _assertion(self) -> str:
        now = int(time.time())
        claims = {
            "iss": self._credentials.service_account_email,
            "scope": SCOPE,
            "aud": _AUDIENCE,
            "iat": now,
            "exp": now + _ASSERTION_SECONDS,
        }
        assertion: bytes = jwt.encode(  # type: ignore[no-untyped-call]  # google-auth has no types.
            self._credentials.signer, claims
        )
        return assertion.decode()

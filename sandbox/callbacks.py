"""Signed webhook requests, delivered the way Twilio delivers them."""

import asyncio
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode
from uuid import uuid4

import httpx
from starlette.datastructures import MultiDict
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]  # No stubs.

from sandbox.settings import SandboxSettings
from sandbox.state import Delivery, DeliveryKind, SandboxState

Parameters = Iterable[tuple[str, str]]

_CONNECT_TIMEOUT = 5.0
_RETRIES = 1
_RETRIES_ALLOWED = [str(number) for number in range(6)]
_POLICY = "ct"


def webhook_client() -> httpx.AsyncClient:
    """A client that opens a connection per request.

    A kept one, closed by an application that restarts, would look like a failed answer and not
    like the failed connection that Twilio retries.
    """
    return httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


class Courier:
    """Delivers webhooks to the application."""

    def __init__(
        self, settings: SandboxSettings, state: SandboxState, client: httpx.AsyncClient
    ) -> None:
        self._settings = settings
        self._state = state
        self._client = client
        # Official code signs, so that it isn't our own idea of a signature that is verified.
        self._validator = RequestValidator(settings.auth_tokens[0])

    async def deliver(
        self, kind: DeliveryKind, url: str, parameters: Parameters, copies: int = 1
    ) -> list[Delivery]:
        """Send one event, several times over if asked, and wait for each answer.

        Follows Twilio's documentation: 15 s in all, one retry when no connection could be made,
        or what the URL's fragment asks for instead (`rc` and `rp`, see
        https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides), the same
        idempotency token on every request for the event, and the fragment neither sent nor signed.
        """
        pairs = list(parameters)
        request = self._request(url, pairs)
        deliveries = []
        for _ in range(copies):
            delivery = self._delivery(kind, url, pairs)
            await self._attempt(request, delivery, url)
            deliveries.append(delivery)
        return deliveries

    async def ask(
        self, url: str, parameters: Parameters, *, method: str = "POST", copies: int = 1
    ) -> tuple[Delivery, httpx.Response | None]:
        """Ask what a call does next; of several copies at once the first answer counts.

        With GET the parameters become part of the address, which alone is signed.
        """
        pairs = list(parameters)
        if method == "GET" and pairs:
            bare, hash_, fragment = url.partition("#")
            url = f"{bare}{'&' if '?' in bare else '?'}{urlencode(pairs)}{hash_}{fragment}"
            pairs = []
        request = self._request(url, pairs, method)
        delivery = self._delivery("call", url, pairs)
        answers = await asyncio.gather(
            self._attempt(request, delivery, url),
            *(
                self._attempt(request, self._delivery("call", url, pairs), url)
                for _ in range(copies - 1)
            ),
        )
        return delivery, answers[0]

    def _request(
        self, url: str, pairs: list[tuple[str, str]], method: str = "POST"
    ) -> httpx.Request:
        signed_url = url.partition("#")[0]
        form = MultiDict(pairs)
        headers = {
            "User-Agent": "TwilioProxy/1.1",
            "X-Twilio-Signature": self._validator.compute_signature(signed_url, form),
            "I-Twilio-Idempotency-Token": str(uuid4()),
        }
        if method == "POST":
            headers["Content-Type"] = "application/x-www-form-urlencoded; charset=UTF-8"
        return self._client.build_request(
            method,
            self.reachable(signed_url),
            content=urlencode(pairs).encode() if method == "POST" else None,
            headers=headers,
            timeout=httpx.Timeout(self._settings.webhook_timeout, connect=_CONNECT_TIMEOUT),
            # As signed, byte for byte: httpx would escape anew.
            extensions={"target": _target(signed_url)},
        )

    def _delivery(self, kind: DeliveryKind, url: str, pairs: list[tuple[str, str]]) -> Delivery:
        form = MultiDict(pairs)
        return Delivery(
            kind=kind,
            url=url.partition("#")[0],
            at=self._state.now(),
            parameters={name: form.getlist(name) for name in form},
        )

    async def _attempt(
        self, request: httpx.Request, delivery: Delivery, url: str
    ) -> httpx.Response | None:
        overrides = dict(parse_qsl(url.partition("#")[2]))
        policy = overrides.get("rp", _POLICY).split(",")
        retries = overrides.get("rc", "")
        attempts = 1 + (int(retries) if retries in _RETRIES_ALLOWED else _RETRIES)
        try:
            async with asyncio.timeout(self._settings.webhook_timeout):
                while True:
                    response, failure = await self._once(request, delivery)
                    again = failure in policy or (failure and "all" in policy)
                    if not again or delivery.attempts >= attempts:
                        return response
        except TimeoutError:
            delivery.error = f"no answer within {self._settings.webhook_timeout:g} s"
        return None

    async def _once(
        self, request: httpx.Request, delivery: Delivery
    ) -> tuple[httpx.Response | None, str]:
        """The answer, and what went wrong in the words of a retry policy; "" for nothing."""
        delivery.attempts += 1
        delivery.error = delivery.response_status = None
        try:
            response = await self._client.send(request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            delivery.error = f"no connection: {error}"
            return None, "ct"
        except httpx.TimeoutException as error:
            raise TimeoutError from error
        except httpx.HTTPError as error:
            delivery.error = f"no answer: {error!r}"
            return None, "rt"
        delivery.response_status = response.status_code
        kind = response.status_code // 100
        return response, f"{kind}xx" if kind in (4, 5) else ""

    def reachable(self, url: str) -> str:
        """Where an address of ours is to be found on this machine."""
        public = self._settings.signed_origin
        rest = url.removeprefix(public)
        if rest == url or rest[:1] not in {"", "/", "?"}:
            return url
        return self._settings.webhook_url + rest


def _target(url: str) -> bytes:
    found = re.search(r"[/?].*", url.partition("://")[2])
    target = found[0] if found else "/"
    return (target if target.startswith("/") else "/" + target).encode("ascii")

"""From a request to an event of the journal, or to the answer that refuses it."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from starlette.types import Scope

from services.common.content_length import is_length_within
from services.common.errors import InvalidInputError
from services.common.journal.events import JournalEvent
from services.webhook import answers
from services.webhook.answers import MAX_BODY_BYTES, MAX_PARAMETERS, RefusedError
from services.webhook.routes import WebhookRoute, to_event
from services.webhook.signature import (
    SIGNATURE_HEADER,
    SignatureResult,
    SignatureVerifier,
    parse_form,
)

Headers = Mapping[bytes, bytes]


class Verification:
    """Checks webhooks, in the order of what each check costs.

    Args:
        verifier: None accepts everything: development only.
        now: Clock for the time of receipt; aware, UTC.
    """

    def __init__(
        self,
        verifier: SignatureVerifier | None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._verifier = verifier
        self._now = now

    def check_head(self, scope: Scope, headers: Headers) -> None:
        """Check what is known before the body.

        Raises:
            RefusedError: The request is none of ours.
        """
        if scope["method"] != "POST":
            raise RefusedError(answers.METHOD)
        if self._verifier is not None and SIGNATURE_HEADER not in headers:
            raise RefusedError(answers.MISSING)
        if _media_type(headers) not in (b"application/x-www-form-urlencoded", b""):
            raise RefusedError(answers.MEDIA_TYPE)
        if not is_length_within(headers.get(b"content-length", b"0"), MAX_BODY_BYTES):
            raise RefusedError(answers.TOO_LARGE)

    def event(
        self, route: WebhookRoute, scope: Scope, headers: Headers, body: bytes, traceparent: str
    ) -> JournalEvent:
        """The event of a whole request whose head is checked.

        Raises:
            RefusedError: It isn't the provider's, or identifies no event.
        """
        if len(body) > MAX_BODY_BYTES:
            raise RefusedError(answers.TOO_LARGE)
        if body and not _media_type(headers):
            raise RefusedError(answers.MEDIA_TYPE)
        raw_query: bytes = scope["query_string"]
        try:
            form = parse_form(body, max_parameters=MAX_PARAMETERS)
            query = parse_form(raw_query, max_parameters=MAX_PARAMETERS) if raw_query else []
        except ValueError:
            raise RefusedError(answers.TOO_MANY) from None
        if self._verifier is not None:
            result = self._verifier.verify(
                raw_path=scope["raw_path"],
                raw_query=raw_query,
                headers=scope["headers"],
                form=form,
                body=body,
            )
            if result is not SignatureResult.VALID:
                raise RefusedError(
                    answers.NO_KEY if result is SignatureResult.NO_KEY else answers.INVALID
                )
        try:
            return to_event(
                route,
                form,
                query,
                received_at=self._now(),
                traceparent=traceparent,
                idempotency_token=headers.get(b"i-twilio-idempotency-token", b""),
            )
        except InvalidInputError as error:
            raise RefusedError(answers.malformed(str(error))) from error


def _media_type(headers: Headers) -> bytes:
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower()

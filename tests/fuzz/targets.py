"""What the fuzzer tries: for each parser a function of bytes that raises when a promise breaks."""

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from services.common.journal.bundles import MalformedBundleError, bundled, unbundled
from services.messaging.consumers.decoding import PoisonError, decode
from services.messaging.consumers.voice_decoding import decode_voice
from services.messaging.providers.baileys import documents, state
from services.messaging.providers.baileys.events import BaileysEvents, journal_event
from services.messaging.providers.baileys.parsing import BadDocumentError
from services.messaging.providers.twilio import voice_webhooks, webhooks
from services.webhook.signature import SignatureResult, SignatureVerifier, parse_form

_NOW: Final = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)
_VERIFIER: Final = SignatureVerifier(
    "https://example.com", ["a-token-nobody-knows"], {"shared": "a-secret-nobody-knows"}
)
_BAILEYS: Final = BaileysEvents(account="+972501111111", own_address="whatsapp:+972501111111")
_TRANSLATORS: Final[Any] = {"twilio": webhooks, "baileys": _BAILEYS}
_FOLDERS: Final[tuple[dict[str, Any], ...]] = (documents.OUTBOX, documents.DONE, documents.INBOX)


def signature(data: bytes) -> None:
    """Any request has an answer, which isn't yes; a form is read as the standard library does.

    Args:
        data: Path, query, signature and settings, a line each, then the body.
    """
    path, query, shown, settings, body = (data.split(b"\n", 4) + [b""] * 4)[:5]
    form = parse_form(body, max_parameters=10_000)
    expected = parse_qsl(
        body.decode("utf-8", "surrogateescape"),
        keep_blank_values=True,
        errors="surrogateescape",
    )
    # Of bytes that aren't UTF-8 the library makes something else.
    if body.isascii() and b"%" not in body and form != expected:
        raise AssertionError(f"{form} instead of {expected}")
    headers = [(b"x-twilio-signature", shown)]
    if settings:
        headers.append((b"x-twilio-webhooks-signature-settings", settings))
    result = _VERIFIER.verify(raw_path=path, raw_query=query, headers=headers, form=form, body=body)
    if result is not SignatureResult.INVALID:
        raise AssertionError(result)


def event(data: bytes) -> None:
    """Any message of a stream is understood, or refused as poison.

    Args:
        data: Headers, a line each, an empty line, then the message's data.
    """
    head, _, content = data.partition(b"\n\n")
    lines = (line.partition(": ") for line in head.decode("utf-8", "replace").splitlines())
    headers = {name: value for name, _, value in lines}
    for parse in (
        lambda: decode(headers, content, _TRANSLATORS),
        lambda: decode_voice(headers, content, {"twilio": voice_webhooks}),
    ):
        try:
            parse()
        except PoisonError:
            continue


def queue(data: bytes) -> None:
    """Any file of the Baileys queue is read, or refused as bad; what is read can be written.

    What goes into the journal from there comes out of it as the same document.
    """
    for kinds in _FOLDERS:
        try:
            document = documents.parse_document(data, kinds)
        except BadDocumentError:
            continue
        written = documents.document_bytes(document)
        if documents.parse_document(written, kinds) != document:
            raise AssertionError(document)
    try:
        journaled = journal_event(data, _NOW)
    except BadDocumentError:
        pass
    else:
        with contextlib.suppress(PoisonError):
            read = decode(journaled.entry().named_headers(), journaled.data, _TRANSLATORS)
            # PostgreSQL takes only what is JSON.
            json.dumps(getattr(read, "payload", {}), allow_nan=False)
    with contextlib.suppress(BadDocumentError):
        state.parse_state(data)


def bundle(data: bytes) -> None:
    """Any message of the stream INTAKE is a bundle of events, or refused; NATS gets no orders.

    What is read can be written.
    """
    try:
        entries = unbundled(data)
    except MalformedBundleError:
        return
    if unbundled(bundled(entries)) != entries:
        raise AssertionError(entries)
    for entry in entries:
        entry.headers.encode("ascii")
        if entry.subject.encode("ascii").split() != [entry.subject.encode("ascii")]:
            raise AssertionError(entry.subject)
        orders = [name for name in entry.named_headers() if name.lower().startswith("nats-")]
        if set(orders) - {"Nats-Msg-Id"}:
            raise AssertionError(orders)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "signature": signature,
    "bundle": bundle,
    "event": event,
    "queue": queue,
}

"""Messages and pages of messages in the words of Twilio's REST API."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from sandbox.state import Media, Message
from sandbox.twilio_errors import API_VERSION, TwilioError, describe

_DEFAULT_PAGE_SIZE = 50
_MAX_PAGE_SIZE = 1000


def message_path(account_sid: str, message_sid: str) -> str:
    """The path of a message, without its extension."""
    return f"/{API_VERSION}/Accounts/{account_sid}/Messages/{message_sid}"


def message_json(message: Message, account_sid: str) -> dict[str, Any]:
    """A message resource."""
    path = message_path(account_sid, message.sid)
    return {
        "account_sid": account_sid,
        "api_version": API_VERSION,
        "body": message.body,
        "date_created": format_datetime(message.created_at),
        "date_sent": None if message.sent_at is None else format_datetime(message.sent_at),
        "date_updated": format_datetime(message.updated_at),
        "direction": message.direction,
        "error_code": message.error_code,
        "error_message": None if message.error_code is None else describe(message.error_code),
        "from": message.sender,
        "messaging_service_sid": None,
        "num_media": str(len(message.media)),
        "num_segments": "1",
        "price": None,
        "price_unit": None,
        "sid": message.sid,
        "status": message.status,
        "subresource_uris": {"media": f"{path}/Media.json"},
        "to": message.recipient,
        "uri": f"{path}.json",
    }


def media_json(media: Media, message: Message, account_sid: str) -> dict[str, Any]:
    """A media resource."""
    created = format_datetime(media.created_at)
    return {
        "sid": media.sid,
        "account_sid": account_sid,
        "parent_sid": message.sid,
        "content_type": media.content_type,
        "date_created": created,
        "date_updated": created,
        "uri": f"{message_path(account_sid, message.sid)}/Media/{media.sid}.json",
    }


def page(
    messages: Sequence[Message], query: QueryParams, path: str, account_sid: str
) -> dict[str, Any]:
    """One page of the messages that a query selects, the newest first.

    A page's token names the last message before it, so messages that arrive while a client
    leafs through don't shift what it sees.

    Raises:
        TwilioError: A page number, a size or a date that Twilio wouldn't take.
    """
    size = min(_whole(query, "PageSize", _DEFAULT_PAGE_SIZE, at_least=1), _MAX_PAGE_SIZE)
    number = _whole(query, "Page", 0, at_least=0)
    selected = _select(messages, query)
    start = _start(selected, query.get("PageToken", ""), number * size)
    shown = selected[start : start + size]

    def uri(number: int, token: str | None) -> str:
        kept = [pair for pair in query.multi_items() if pair[0] not in _PAGING]
        paging = [("PageSize", str(size)), ("Page", str(number))]
        if token is not None:
            paging.append(("PageToken", token))
        return f"{path}?{urlencode(kept + paging)}"

    following = start + size < len(selected)
    previous = _token(selected, start - size)
    return {
        "messages": [message_json(message, account_sid) for message in shown],
        "first_page_uri": uri(0, None),
        "next_page_uri": uri(number + 1, _token(selected, start + size)) if following else None,
        "previous_page_uri": uri(max(number - 1, 0), previous) if start > 0 else None,
        "uri": uri(number, query.get("PageToken")),
        "page": number,
        "page_size": size,
        "start": start,
        "end": max(start + len(shown) - 1, 0),
    }


_PAGING = frozenset({"PageSize", "Page", "PageToken"})


def _token(selected: Sequence[Message], start: int) -> str | None:
    return f"PA{selected[start - 1].sid}" if start > 0 else None


def _start(selected: Sequence[Message], token: str, offset: int) -> int:
    if not token:
        return offset
    for index, message in enumerate(selected):
        if token == f"PA{message.sid}":
            return index + 1
    raise TwilioError(400, 20001, "Invalid PageToken")


def _select(messages: Sequence[Message], query: QueryParams) -> list[Message]:
    tests: list[Callable[[Message], bool]] = []
    if recipient := query.get("To"):
        tests.append(lambda message: message.recipient == recipient)
    if sender := query.get("From"):
        tests.append(lambda message: message.sender == sender)
    if on := query.get("DateSent"):
        day = _moment(on).date()
        tests.append(lambda message: _sent(message).date() == day)
    if until := query.get("DateSent<"):
        last = _moment(until)
        tests.append(lambda message: _sent(message) <= last)
    if since := query.get("DateSent>"):
        first = _moment(since)
        tests.append(lambda message: _sent(message) >= first)
    return [message for message in reversed(messages) if all(test(message) for test in tests)]


def _sent(message: Message) -> datetime:
    return (message.sent_at or message.created_at).replace(microsecond=0)


def _moment(value: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise TwilioError(400, 20001, f"Invalid date: {value}") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _whole(query: QueryParams, name: str, default: int, *, at_least: int) -> int:
    value = query.get(name, str(default))
    if not (value.isascii() and value.isdigit()) or int(value) < at_least:
        raise TwilioError(400, 20001, f"{name} must be a whole number from {at_least}")
    return int(value)

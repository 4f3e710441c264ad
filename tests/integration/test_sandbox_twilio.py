"""Twilio's own SDK can't tell the sandbox from Twilio, for what Switchboard uses."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from twilio.base.exceptions import (  # type: ignore[import-untyped]  # No stubs.
    TwilioRestException,
)
from twilio.rest import Client  # type: ignore[import-untyped]  # No stubs.

from sandbox.server import RunningSandbox
from tests.support.sandbox import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    CONTACT,
    OUR_NUMBER,
    twilio_client,
)

OTHER_CONTACT = "whatsapp:+972507654321"
TEMPLATE = "HX0123456789abcdef0123456789abcdef"


async def call(
    sandbox: RunningSandbox, work: Callable[[Client], Any], token: str = AUTH_TOKEN
) -> Any:
    """Do something with the SDK, which blocks, in a thread."""

    def run() -> Any:
        with twilio_client(sandbox.base_url, token) as client:
            return work(client)

    return await asyncio.to_thread(run)


async def send(sandbox: RunningSandbox, **fields: Any) -> Any:
    """Create a message that is right but for the fields given."""
    fields = {"to": CONTACT, "from_": OUR_NUMBER, "body": "Hello"} | fields
    return await call(sandbox, lambda client: client.messages.create(**fields))


async def test_create_and_fetch(sandbox: RunningSandbox) -> None:
    """A created message is queued at first, read in the end, and complete for the SDK."""
    created = await send(sandbox, body="Grüße, שלום")

    assert created.sid.startswith("SM")
    assert len(created.sid) == 34
    assert (created.status, created.direction) == ("queued", "outbound-api")
    assert created.date_sent is None

    await sandbox.settled()
    fetched = await call(sandbox, lambda client: client.messages(created.sid).fetch())

    assert fetched.status == "read"
    assert (fetched.body, fetched.from_, fetched.to) == ("Grüße, שלום", OUR_NUMBER, CONTACT)
    assert fetched.account_sid == ACCOUNT_SID
    assert abs(fetched.date_sent - datetime.now(UTC)) < timedelta(minutes=1)
    assert fetched.error_code is None
    assert fetched.price is None
    assert fetched.num_media == "0"
    assert fetched.uri.endswith(f"/Messages/{created.sid}.json")


async def test_list_pages_newest_first(sandbox: RunningSandbox) -> None:
    """The SDK leafs through all pages, newest first, and arrivals on the way shift nothing."""
    sids = [(await send(sandbox, body=str(number))).sid for number in range(7)]

    def leaf(client: Client) -> list[str]:
        stream = client.messages.stream(page_size=2)
        found = [message.sid for message in islice(stream, 3)]
        client.messages.create(to=CONTACT, from_=OUR_NUMBER, body="in between")
        return found + [message.sid for message in stream]

    assert await call(sandbox, leaf) == sids[::-1]


async def test_pages_lead_back(sandbox: RunningSandbox) -> None:
    """The page before the second is the first."""
    for number in range(5):
        await send(sandbox, body=str(number))

    def there_and_back(client: Client) -> tuple[list[str], list[str], list[str]]:
        first = client.messages.page(page_size=2)
        second = first.next_page()
        again = second.previous_page()
        return tuple([m.body for m in page] for page in (first, second, again))  # type: ignore[return-value]  # Three of them.

    assert await call(sandbox, there_and_back) == (["4", "3"], ["2", "1"], ["4", "3"])


async def test_list_filters(sandbox: RunningSandbox) -> None:
    """To, From and the dates select, as a reconciler needs them to."""
    ours = await send(sandbox)
    other = await send(sandbox, to=OTHER_CONTACT)
    async with httpx.AsyncClient(base_url=sandbox.base_url, timeout=60) as http:
        written = await http.post(
            "/sandbox/contacts/+972501234567/messages", json={"body": "Hi", "deliver": False}
        )
    inbound_sid = written.json()["sid"]

    async def sids(**filters: Any) -> list[str]:
        found = await call(sandbox, lambda client: client.messages.list(**filters))
        return [message.sid for message in found]

    now = datetime.now(UTC)
    assert await sids(to=CONTACT) == [ours.sid]
    assert await sids(to=CONTACT, from_=OUR_NUMBER, date_sent_after=now - timedelta(hours=1)) == [
        ours.sid
    ]
    assert await sids(from_=CONTACT) == [inbound_sid]
    assert await sids(date_sent_before=now - timedelta(hours=1)) == []
    assert await sids(date_sent_after=now + timedelta(hours=1)) == []
    assert await sids(limit=1, date_sent=ours.date_created) == [inbound_sid]
    assert other.sid in await sids()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"to": ""}, 21604),
        ({"to": "whatsapp:12"}, 21211),
        ({"to": "+972501234567"}, 21910),
        ({"from_": ""}, 21603),
        ({"from_": "whatsapp:nobody"}, 21212),
        ({"from_": "whatsapp:+14150000000"}, 63007),
        ({"from_": "+14150000000", "to": "+972501234567"}, 21606),
        ({"body": " "}, 21602),
        ({"body": "x" * 1601}, 21617),
        ({"media_url": ["file:///etc/passwd"]}, 21620),
        ({"media_url": ["https://example.com/a.png"] * 11}, 21623),
        ({"status_callback": "not a url"}, 21609),
        ({"status_callback": "https://host:99999/"}, 21609),
        ({"status_callback": "https://a..b/"}, 21609),
        ({"content_sid": "HX1"}, 21655),
        ({"content_sid": TEMPLATE, "content_variables": "{"}, 21656),
        ({"content_sid": TEMPLATE, "content_variables": '{"1": 2}'}, 21656),
    ],
)
async def test_refusals(sandbox: RunningSandbox, fields: dict[str, Any], code: int) -> None:
    """A wrong request raises the SDK's error with Twilio's code, and leaves no message."""
    with pytest.raises(TwilioRestException) as caught:
        await send(sandbox, **fields)

    assert (caught.value.status, caught.value.code) == (400, code)
    assert not sandbox.state.messages


async def test_longest_body_is_accepted(sandbox: RunningSandbox) -> None:
    """1600 characters is not too long."""
    assert (await send(sandbox, body="א" * 1600)).status == "queued"


async def test_template(sandbox: RunningSandbox) -> None:
    """A template goes without a body."""
    sent = await send(sandbox, body="", content_sid=TEMPLATE, content_variables='{"1": "Dana"}')

    assert sent.body == f"Template {TEMPLATE} 1=Dana"


async def test_number_without_phone(sandbox: RunningSandbox) -> None:
    """A WhatsApp user without a visible number can be written to."""
    assert (await send(sandbox, to="whatsapp:US.13491208655302")).status == "queued"


async def test_any_valid_token_opens(sandbox: RunningSandbox) -> None:
    """While a token is rotated, both the old and the new one work; a third doesn't."""
    assert await call(sandbox, lambda client: client.messages.list(), "second-token") == []
    with pytest.raises(TwilioRestException) as caught:
        await call(sandbox, lambda client: client.messages("SM1").fetch(), "third-token")
    assert (caught.value.status, caught.value.code) == (401, 20003)


async def test_error_body_and_unknown_resources(sandbox: RunningSandbox) -> None:
    """What isn't there is 20404 in Twilio's four fields, on paths unknown here as well."""
    with pytest.raises(TwilioRestException) as caught:
        await call(sandbox, lambda client: client.messages("SM" + "0" * 32).fetch())
    assert (caught.value.status, caught.value.code) == (404, 20404)

    for path in (f"/Accounts/{ACCOUNT_SID}/Calls.json", "/Accounts/AC1/Messages.json"):
        async with httpx.AsyncClient(auth=(ACCOUNT_SID, AUTH_TOKEN), timeout=60) as http:
            answer = await http.get(f"{sandbox.base_url}/2010-04-01{path}")
        assert answer.status_code == 404
        assert answer.json() == {
            "code": 20404,
            "message": f"The requested resource /2010-04-01{path} was not found",
            "more_info": "https://www.twilio.com/docs/errors/20404",
            "status": 404,
        }


@pytest.mark.parametrize("query", ["PageSize=0", "Page=x", "PageToken=PA1", "DateSent=soon"])
async def test_bad_list_queries(sandbox: RunningSandbox, query: str) -> None:
    """A list query that makes no sense is refused, not misread."""
    url = f"{sandbox.base_url}/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json?{query}"
    async with httpx.AsyncClient(auth=(ACCOUNT_SID, AUTH_TOKEN), timeout=60) as http:
        answer = await http.get(url)

    assert (answer.status_code, answer.json()["code"]) == (400, 20001)


async def test_media(sandbox: RunningSandbox) -> None:
    """A message's files are listed by the SDK and fetched with Basic auth only, always the same.

    The file itself is at another host, to which the way leads by a redirect.
    """
    sent = await send(sandbox, body="", media_url=["https://example.com/a.png"])
    assert sent.num_media == "1"

    media = await call(sandbox, lambda client: client.messages(sent.sid).media.list())
    again = await call(
        sandbox, lambda client: client.messages(sent.sid).media(media[0].sid).fetch()
    )
    assert media[0].sid == again.sid
    assert media[0].sid.startswith("ME")
    assert media[0].content_type == "image/png"

    url = sandbox.base_url + media[0].uri.removesuffix(".json")
    async with httpx.AsyncClient(auth=(ACCOUNT_SID, AUTH_TOKEN), timeout=60) as http:
        assert (await http.get(url, auth=httpx.Auth())).status_code == 401
        redirect = await http.get(url)
        first, second = [await http.get(url, follow_redirects=True) for _ in range(2)]
        missing = await http.get(url + "0")
    assert redirect.status_code == 307
    assert urlsplit(redirect.headers["Location"]).netloc != urlsplit(url).netloc
    assert first.headers["Content-Type"] == "image/png"
    assert first.content.startswith(b"\x89PNG")
    assert first.content == second.content
    assert missing.status_code == 404

"""A file that is to be sent is looked at first, and looking can't be turned against us."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.common.errors import UnavailableError
from services.messaging.ports.media import FileFacts, MediaUnobtainableError
from services.messaging.providers.media_inspector import HttpMediaInspector
from services.messaging.store.database import Database
from tests.support.api import running_api
from tests.support.files import PDF, KnownFiles
from tests.support.grpc_api import TOKEN, called, details, have_written, served
from tests.support.hostile import (
    Answer,
    Hostile,
    endless,
    file,
    garbage,
    head,
    hostile,
    sends_to,
    status,
)
from tests.support.receiving import phone
from tests.support.sending import open_database

if TYPE_CHECKING:
    from switchboard.messaging.v1.messaging_service_pb2_grpc import (
        MessagingServiceAsyncStub as Api,
    )

SEND = "/api/whatsapp/send"
PLAN = "https://files.example.com/plan.pdf"


def inspector(seconds: float = 5, *, local: bool = True) -> HttpMediaInspector:
    """What looks at files, those of this machine as well."""
    return HttpMediaInspector(local=local, timeout_seconds=seconds)


def says(*headers: str) -> Answer:
    """An answer with these headers to any request."""

    async def answer(host: Hostile, writer: asyncio.StreamWriter) -> None:
        writer.write(head("200 OK", *headers, "Connection: close"))

    return answer


def by_method(to_head: Answer, to_get: Answer) -> Answer:
    """Answers that differ by the method."""

    async def answer(host: Hostile, writer: asyncio.StreamWriter) -> None:
        await (to_head if host.requests[-1].startswith("HEAD ") else to_get)(host, writer)

    return answer


async def silence(host: Hostile, writer: asyncio.StreamWriter) -> None:
    """No answer at all."""
    await asyncio.Event().wait()


def methods(host: Hostile) -> list[str]:
    """The methods of the requests that have come."""
    return [request.partition(" ")[0] for request in host.requests]


async def test_a_head_is_enough() -> None:
    """Type and size are known from one HEAD without credentials, however the type is written."""
    answer = says("Content-Type: IMAGE/Png; charset=x", "Content-Length: 4")
    async with hostile(answer) as host:
        assert await inspector().inspect(f"{host.base_url}/a%2Fb?c=%7e") == FileFacts(
            "image/png", 4
        )
    [request] = host.requests
    # A signed address must arrive as it was written.
    assert request.startswith("HEAD /a%2Fb?c=%7e HTTP/1.1")
    assert not {"authorization", "cookie"} & {
        line.partition(":")[0].lower() for line in request.splitlines()
    }


@pytest.mark.parametrize(
    "to_head",
    [
        status("405 Method Not Allowed"),
        status("501 Not Implemented"),
        status("403 Forbidden"),
        status("404 Not Found"),
        says("Content-Length: 4"),
        garbage,
    ],
    ids=["405", "501", "403", "404", "no type", "no HTTP"],
)
async def test_a_get_is_asked_where_a_head_says_nothing(to_head: Answer) -> None:
    """A host that gives no useful answer to HEAD is asked with GET, of which no body is read."""
    async with hostile(by_method(to_head, endless)) as host:
        async with asyncio.timeout(60):
            facts = await inspector().inspect(f"{host.base_url}/file")
        assert facts == FileFacts("image/png", None)
    assert methods(host) == ["HEAD", "GET"]


async def test_redirects_are_followed_and_end() -> None:
    """A file may be elsewhere; a host that sends us round in circles is left after a few times."""
    async with hostile(file) as there, hostile(sends_to(f"{there.base_url}/file")) as here:
        facts = await inspector().inspect(f"{here.base_url}/file")
    assert facts == FileFacts("image/png", 4)
    async with hostile(sends_to("{here}/again")) as here:
        with pytest.raises(MediaUnobtainableError, match="more than 5 times"):
            await inspector().inspect(f"{here.base_url}/file")
    assert len(here.requests) == 6


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("https://10.0.0.1/", "private network"),
        ("https://169.254.169.254/latest/meta-data/", "private network"),
        ("https://[fe80::1]/", "private network"),
        ("https://[::ffff:10.0.0.1]/", "private network"),
        ("https://[64:ff9b::a00:1]/", "private network"),
        ("https://[2002:7f00:1::]/", "private network"),
        ("http://8.8.8.8/", "not https"),
        ("file:///etc/passwd", "neither https"),
        ("https://user:secret@example.com/", "credentials"),
        ("", "malformed"),
    ],
)
async def test_no_redirect_leads_into_a_network_of_ours(location: str, why: str) -> None:
    """Each redirect is checked anew, also of the GET that follows a HEAD."""
    for answer in (
        sends_to(location),
        by_method(status("405 Method Not Allowed"), sends_to(location)),
    ):
        async with hostile(answer) as host:
            with pytest.raises(MediaUnobtainableError, match=why):
                await inspector().inspect(f"{host.base_url}/file")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
async def test_this_machine_is_private(host: str) -> None:
    """With the real Twilio no file of this machine is looked at, whatever name leads here."""
    async with hostile(file) as here:
        port = here.base_url.rpartition(":")[2]
        with pytest.raises(MediaUnobtainableError, match="private network"):
            await inspector(local=False).inspect(f"https://{host}:{port}/file")
    assert here.requests == []


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        (status("404 Not Found"), MediaUnobtainableError, "HTTP 404"),
        (status("401 Unauthorized"), MediaUnobtainableError, "HTTP 401"),
        (status("204 No Content"), MediaUnobtainableError, "HTTP 204"),
        (status("429 Too Many Requests"), UnavailableError, "HTTP 429"),
        (status("503 Service Unavailable"), UnavailableError, "HTTP 503"),
        (silence, UnavailableError, "in time"),
        (says("Content-Length: a lot"), UnavailableError, "its host's answer is no proper HTTP"),
    ],
)
async def test_a_bad_answer_has_an_end(answer: Answer, error: type[Exception], why: str) -> None:
    """Whatever is answered, looking ends in time and says whether it may help to ask again."""
    async with hostile(answer) as host:
        with pytest.raises(error, match=why):
            await inspector(0.5).inspect(f"{host.base_url}/file")


async def test_nobody_there() -> None:
    """A host that doesn't answer, or that nobody knows, may do so later."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match="its host can't be reached"):
            await inspector().inspect(f"http://127.0.0.1:{port}/file")
    with pytest.raises(UnavailableError, match="can't be found"):
        await inspector().inspect("https://nobody.invalid/file")


async def test_a_host_that_is_not_who_it_says(tmp_path: Path) -> None:
    """A certificate that nobody vouches for is named, and so is a host without TLS."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    file_ = tmp_path / "own.pem"
    file_.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file_)
    async with hostile(file, tls) as host:
        with pytest.raises(UnavailableError, match="its host's TLS certificate isn't valid"):
            await inspector().inspect(f"{host.base_url}/file")
    assert host.requests == []

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UnavailableError, match="doesn't speak TLS"):
            await inspector().inspect(f"https://127.0.0.1:{port}/file")


# What the API makes of it.


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        await have_written(database, 1)
        yield database


async def refused(api: Api, url: str) -> tuple[grpc.StatusCode, str, str]:
    """Code, reason and rule by which a message with this file is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await api.SendMessage(pb.SendMessageRequest(to=phone(1), media_url=url))
    assert (raised.value.details() or "").startswith("media_url: ")
    info = details(raised.value)["ErrorInfo"]
    return raised.value.code(), info.reason, info.metadata["rule"]


@pytest.mark.parametrize(
    ("answer", "reason", "rule"),
    [
        (says("Content-Type: text/html"), "POLICY_REFUSED", "media_type"),
        (says("Content-Type: image/gif"), "POLICY_REFUSED", "media_type"),
        (says("Content-Type: \x7f"), "POLICY_REFUSED", "media_type"),
        (says("Content-Length: 4"), "POLICY_REFUSED", "media_type"),
        (
            says("Content-Type: video/mp4", f"Content-Length: {16 * 1024 * 1024 + 1}"),
            "POLICY_REFUSED",
            "media_size",
        ),
        (
            says("Content-Type: image/png", f"Content-Length: {5 * 1024 * 1024 + 1}"),
            "POLICY_REFUSED",
            "media_size",
        ),
        (status("404 Not Found"), "POLICY_REFUSED", "media_unobtainable"),
        (sends_to("https://10.0.0.1/"), "POLICY_REFUSED", "media_unobtainable"),
        (status("500 Internal Server Error"), "MEDIA_UNREADABLE", "media_unreadable"),
        (silence, "MEDIA_UNREADABLE", "media_unreadable"),
    ],
)
async def test_what_whatsapp_would_not_take_is_refused(
    database: Database, answer: Answer, reason: str, rule: str
) -> None:
    """The rule is named, what may pass is UNAVAILABLE, and nothing is stored."""
    code = "FAILED_PRECONDITION" if reason == "POLICY_REFUSED" else "UNAVAILABLE"
    async with (
        hostile(answer) as host,
        served(database, files=inspector(0.5), local_files=True) as server,
        called(server) as api,
    ):
        assert await refused(api, f"{host.base_url}/plan.pdf") == (
            grpc.StatusCode[code],
            reason,
            rule,
        )
        listed = await api.ListMessages(pb.ListMessagesRequest())
    assert [one.body for one in listed.messages] == ["Hello"]


async def test_the_type_is_the_true_one(database: Database) -> None:
    """A message says what its file is, not what its name would let expect."""
    answer = says("Content-Type: image/jpeg", f"Content-Length: {5 * 1024 * 1024}")
    async with (
        hostile(answer) as host,
        served(database, files=inspector(), local_files=True) as server,
        called(server) as api,
    ):
        request = pb.SendMessageRequest(to=phone(1), media_url=f"{host.base_url}/download.html")
        sent = (await api.SendMessage(request)).message
    assert [one.content_type for one in sent.media] == ["image/jpeg"]


async def test_a_repeated_request_is_not_looked_at_again(database: Database) -> None:
    """A known request_id gives the message stored first, though its file is gone by now."""
    async with (
        hostile(file) as host,
        served(database, files=inspector(), local_files=True) as server,
        called(server) as api,
    ):
        url = f"{host.base_url}/plan.png"
        request = pb.SendMessageRequest(to=phone(1), media_url=url, request_id="visit-17")
        first = await api.SendMessage(request)
        asked = len(host.requests)
        host.answer = status("404 Not Found")
        assert await api.SendMessage(request) == first
        request.body = "Another"
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await api.SendMessage(request)
        assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS
        assert len(host.requests) == asked
        # Without the key, or with a new one, it is another message.
        for key in ("", "visit-18"):
            request.request_id = key
            with pytest.raises(grpc.aio.AioRpcError):
                await api.SendMessage(request)


async def test_one_request_at_many_places_is_one_message(database: Database) -> None:
    """Repeats that come while the first is being looked at may look, too, and store nothing."""
    async with (
        hostile(file) as host,
        served(database, files=inspector(), local_files=True) as server,
        called(server) as api,
    ):
        url = f"{host.base_url}/plan.png"
        request = pb.SendMessageRequest(to=phone(1), media_url=url, request_id="visit-17")
        answers = await asyncio.gather(*(api.SendMessage(request) for _ in range(10)))
        assert len({one.message.id for one in answers}) == 1


@pytest.mark.parametrize(
    ("found", "code", "rule"),
    [
        (FileFacts("text/html", 4), 409, "media_type"),
        (FileFacts("video/mp4", 17_000_000), 409, "media_size"),
        (MediaUnobtainableError("the answer was HTTP 404"), 409, "media_unobtainable"),
        (UnavailableError("it did not arrive in time"), 424, "media_unreadable"),
    ],
)
async def test_rest_says_which_rule(
    database: Database, found: FileFacts | Exception, code: int, rule: str
) -> None:
    """A problem document names the rule and the field; what may pass says when to come again."""
    files = KnownFiles({PLAN: found})
    async with (
        served(database, files=files) as server,
        running_api(f"127.0.0.1:{server.port}", token=TOKEN) as api,
    ):
        body = {"to": phone(1), "media_url": PLAN}
        response = await api.http.post(SEND, json=body)
        problem = response.json()
        assert (response.status_code, problem["rule"]) == (code, rule)
        assert problem["detail"].startswith("media_url: ")
        assert ("retry-after" in response.headers) == (code == 424)
        files.files[PLAN] = PDF
        sent = await api.http.post(SEND, json=body)
        assert (sent.status_code, sent.json()["media"][0]["content_type"]) == (
            202,
            "application/pdf",
        )

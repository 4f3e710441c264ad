"""messaging's gRPC API under attack, on both databases."""

import base64
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.common.grpc_server import GrpcServer
from services.messaging.grpc_api.tokens import encode_cursor, encode_page_token
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from tests.support.attacks import Attacks
from tests.support.grpc_api import TOKEN, called, served
from tests.support.receiving import START, inbound, phone, receive, rows
from tests.support.sending import now, open_database

SERVICE = pb.DESCRIPTOR.services_by_name["MessagingService"]
METHODS = {method.name: bool(method.server_streaming) for method in SERVICE.methods}
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
REFUSED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}

Metadata = tuple[tuple[str, str | bytes], ...]
GOOD: Metadata = (("authorization", f"Bearer {TOKEN}"),)

# What never reaches the database is tried on the cheaper one.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        messages = [
            inbound(f"SM{number}", contact=number % 2, seconds=number, body=f"said {number % 2}")
            for number in range(6)
        ]
        await receive(SqlIngestStore(database), clock=now, replies=None)(messages, [])
        yield database


@pytest.fixture
async def server(database: Database) -> AsyncIterator[GrpcServer]:
    async with served(database) as server:
        yield server


@pytest.fixture
async def channel(server: GrpcServer) -> AsyncIterator[grpc.aio.Channel]:
    """A connection without a token, with room for too much."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 1_000_000)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options) as channel:
        yield channel


async def code(
    channel: grpc.aio.Channel, method: str, data: bytes, metadata: Metadata
) -> grpc.StatusCode:
    """How a call of any bytes ends; a stream by its first response.

    A stream of requests is opened as one request: the server can't tell them apart, and
    ``grpc.aio`` ends a stream with an INTERNAL of its own when it is refused before its
    first request was written.
    """
    path = method if method.startswith("/") else f"/{SERVICE.full_name}/{method}"
    streams = method == REFLECTION or METHODS.get(method)
    open_: Any = channel.unary_stream if streams else channel.unary_unary
    try:
        call = open_(path)(data, timeout=20, metadata=metadata)
        if streams:
            await call.read()
        else:
            await call
        if call.done():
            return await call.code()  # type: ignore[no-any-return] # grpc's stubs say Any.
        call.cancel()
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


TOKENS: list[Metadata] = [
    (),
    (("authorization", ""),),
    (("authorization", TOKEN),),
    (("authorization", "Bearer"),),
    (("authorization", "Bearer "),),
    (("authorization", f"bearer {TOKEN}"),),
    (("authorization", f"Bearer  {TOKEN}"),),
    (("authorization", f"Bearer {TOKEN[:-1]}"),),
    (("authorization", f"Bearer {TOKEN}x"),),
    (("authorization", f"Bearer {TOKEN}, Bearer {TOKEN}"),),
    (("authorization", f"Basic {base64.b64encode(TOKEN.encode()).decode()}"),),
    (("authorization", "Bearer *"),),
    (("authorization", "Bearer " + "x" * 4000),),
    (("authorization-bin", f"Bearer {TOKEN}".encode()),),
    (("x-authorization", f"Bearer {TOKEN}"),),
    (("cookie", f"authorization=Bearer {TOKEN}"),),
    (("grpc-internal-authorization", f"Bearer {TOKEN}"),),
]


@on_sqlite
async def test_without_a_token_nothing_is_told(
    channel: grpc.aio.Channel, database: Database, attacks: Attacks
) -> None:
    """No method, and no list of methods, answers whoever has no token, or nearly has it."""
    listing = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    for shown in TOKENS:
        for method in (*METHODS, REFLECTION):
            ended = await code(channel, method, listing if method == REFLECTION else b"", shown)
            refused = ended in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNKNOWN)
            attacks.count("gRPC: tokens", through=not refused, evidence=(method, shown, ended))
    assert len(await rows(database, "messages")) == 6


@on_sqlite
async def test_bombs_end_at_the_door(
    channel: grpc.aio.Channel, server: GrpcServer, attacks: Attacks
) -> None:
    """Too much metadata, too large or too deep a message: refused, and others are served."""
    bombs: list[Metadata] = [
        (("x", "y" * 100_000),),
        tuple((f"x-{number}", "y" * 100) for number in range(2000)),
        tuple(("x", "y") for _ in range(5000)),
        (("x-bin", b"\0" * 100_000),),
    ]
    for metadata in bombs:
        for good in (GOOD, ()):
            ended = await code(channel, "GetStatus", b"", (*good, *metadata))
            attacks.count("gRPC: metadata bombs", through=ended is grpc.StatusCode.OK)
    nested = b""
    for _ in range(5000):
        nested = b"\x0a" + varint(len(nested)) + nested
    # A group within a group is as deep as its sender likes.
    groups = b"\x0b" * 200_000
    for data in (b"\x0a" + varint(2_000_000) + b"x" * 2_000_000, nested, groups):
        for method in METHODS:
            for metadata in (GOOD, ()):
                ended = await code(channel, method, data, metadata)
                attacks.count(
                    "gRPC: large and deep messages",
                    through=ended is grpc.StatusCode.OK and not metadata,
                    evidence=(method, ended),
                )
    async with called(server) as api:
        assert len((await api.ListMessages(pb.ListMessagesRequest())).messages) == 6


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


fields = st.one_of(
    st.tuples(st.integers(1, 12), st.integers(0, 2**64 - 1)).map(
        lambda pair: varint(pair[0] << 3) + varint(pair[1])
    ),
    st.tuples(st.integers(1, 12), st.binary(max_size=8)).map(
        lambda pair: varint(pair[0] << 3 | 2) + varint(len(pair[1])) + pair[1]
    ),
    st.tuples(st.integers(1, 12), st.binary(min_size=8, max_size=8)).map(
        lambda pair: varint(pair[0] << 3 | 1) + pair[1]
    ),
)
wire = st.lists(fields, max_size=3).map(b"".join) | st.binary(max_size=20)


def generated(strategy: st.SearchStrategy[Any], number: int) -> list[Any]:
    found: list[Any] = []

    @settings(deadline=None, max_examples=number, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def find(one: Any) -> None:
        found.append(one)

    find()
    return found


# What can't be read as a request at all is grpc's to refuse, by a code of its own.
SAFE = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAUTHENTICATED,
}
UNREADABLE = SAFE | {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


def readable(method: str, data: bytes) -> bool:
    try:
        request: Any = getattr(pb, f"{method}Request")
        request.FromString(data)
    except Exception:  # noqa: BLE001 - Whatever it raises: the library can't read it.
        return False
    return True


@on_sqlite
async def test_no_bytes_break_a_method(channel: grpc.aio.Channel, attacks: Attacks) -> None:
    """Fields of other types, numbers or lengths, and mere noise, are refused or ignored."""
    requests = st.tuples(st.sampled_from(sorted(METHODS)), wire)
    for method, data in generated(requests, 200):
        ended = await code(channel, method, data, GOOD)
        allowed = SAFE if readable(method, data) else UNREADABLE
        attacks.count(
            "gRPC: wrong types", through=ended not in allowed, evidence=(method, data, ended)
        )
        ended = await code(channel, method, data, ())
        attacks.count("gRPC: wrong types, no token", through=ended is grpc.StatusCode.OK)


def bent(token: str) -> Iterator[str]:
    """A token, changed a little."""
    raw = base64.urlsafe_b64decode(token)
    # The place a token leads to is no secret; what isn't to be changed is whose it is.
    for bit in range(128, len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        yield base64.urlsafe_b64encode(flipped).decode()
    for length in range(1, len(token)):
        yield token[:length]
    yield from (token + "A", token * 2, token + "\0", token.swapcase(), " " + token, token + "\n")


async def test_a_token_of_one_conversation_opens_no_other(
    server: GrpcServer, database: Database, attacks: Attacks
) -> None:
    """Page tokens of another contact, conversation or list, cut, bent or made up, are refused."""
    async with called(server) as api:
        conversations = (await api.ListConversations(pb.ListConversationsRequest())).conversations
        mine, other = (conversation.id for conversation in conversations)
        asked = [
            pb.ListMessagesRequest(page_size=1, conversation_id=mine),
            pb.ListMessagesRequest(page_size=1, conversation_id=other),
            pb.ListMessagesRequest(page_size=1, contact_address=phone(0)),
            pb.ListMessagesRequest(page_size=1, contact_address=phone(1)),
            pb.ListMessagesRequest(page_size=1),
        ]
        tokens = [(await api.ListMessages(request)).next_page_token for request in asked]
        listed = await api.ListConversations(pb.ListConversationsRequest(page_size=1))
        tokens.append(listed.next_page_token)
        assert all(tokens)

        async def attempt(kind: str, number: int, token: str) -> None:
            request = pb.ListMessagesRequest()
            request.CopyFrom(asked[number])
            request.page_token = token
            try:
                answer = await api.ListMessages(request)
            except grpc.aio.AioRpcError as error:
                attacks.count(kind, through=error.code() not in REFUSED, evidence=error)
            else:
                attacks.count(kind, through=True, evidence=answer)

        for number in range(len(asked)):
            for belongs, token in enumerate(tokens):
                if belongs != number:
                    await attempt("page tokens of others", number, token)
        for token in bent(tokens[0]):
            await attempt("page tokens bent", 0, token)
        for token in generated(st.text(min_size=1, max_size=40), 40):
            await attempt("page tokens made up", 0, token)
        for id_ in (*bent_ids(mine), *(str(n) for n in range(1, 7)), "%", "_" * len(mine), "*"):
            try:
                answer = await api.ListMessages(pb.ListMessagesRequest(conversation_id=id_))
            except grpc.aio.AioRpcError as error:
                attacks.count("ids guessed", through=error.code() not in REFUSED, evidence=error)
            else:
                attacks.count("ids guessed", through=True, evidence=answer)


def bent_ids(id_: str) -> Iterator[str]:
    for at, letter in enumerate(id_):
        yield id_[:at] + ("0" if letter != "0" else "1") + id_[at + 1 :]
        if at:
            yield id_[:at]
    yield from (id_.upper(), id_ + "0", f" {id_}", id_[:-1] + "%", id_ + "\0")


numbers = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(
    [0, -1, -(2**63), 2**63 - 1, -62135596800_000000, 253402300799_999999]
)


async def test_a_token_may_lead_anywhere_in_its_own_list(
    server: GrpcServer, attacks: Attacks
) -> None:
    """Whatever place is written into a good token or cursor, it's a page or a refusal."""
    async with called(server) as api:
        [mine, _] = (await api.ListConversations(pb.ListConversationsRequest())).conversations
        question = ("messages", "", mine.id, "", "", "", "")
        proof = base64.urlsafe_b64decode(encode_page_token((START, 1), *question))[16:]
        cursor = base64.urlsafe_b64decode(encode_cursor((1, 1)))[16:]
        for first, second in generated(st.tuples(numbers, numbers), 60):
            place = struct.pack(">qq", first, second)
            request = pb.ListMessagesRequest(
                conversation_id=mine.id,
                page_token=base64.urlsafe_b64encode(place + proof).decode(),
            )
            try:
                found = (await api.ListMessages(request)).messages
                foreign = any(one.conversation_id != mine.id for one in found)
                attacks.count("page tokens forged", through=foreign)
            except grpc.aio.AioRpcError as error:
                attacks.count(
                    "page tokens forged",
                    through=error.code() not in REFUSED,
                    evidence=(first, second, error),
                )
            watching = api.WatchMessages(
                pb.WatchMessagesRequest(cursor=base64.urlsafe_b64encode(place + cursor).decode()),
                timeout=20,
            )
            try:
                await watching.read()
                watching.cancel()
                attacks.count("cursors forged", through=False)
            except grpc.aio.AioRpcError as error:
                attacks.count(
                    "cursors forged",
                    through=error.code() not in REFUSED,
                    evidence=(first, second, error),
                )

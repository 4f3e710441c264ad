"""Messages accepted for sending against gRPC's own speed.

`python -m benchmarks.sending` prints, for SQLite and PostgreSQL, how many calls of SendMessage a
second are answered (over a socket, with the token and every rule checked, the message and its place
in the outbox on disk before the answer) and how many of a bare grpc.aio server that hands the same
request's text back, both in one run by the same client, each server in a process of its own, and
their ratio. Afterwards every message must stand in the database once.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop
from sqlalchemy import func, select
from switchboard.messaging.v1 import messaging_service_pb2 as pb
from switchboard.messaging.v1 import messaging_service_pb2_grpc as rpc

from benchmarks import results
from benchmarks.results import Result, say
from services.common.grpc_client import open_channel
from services.messaging.grpc_api.servicer import SERVICE_NAME
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.message_models import MessageRow
from services.messaging.store.work_models import OutboxRow
from tests.support.databases import PostgresServer, migrated
from tests.support.grpc_api import TOKEN, served
from tests.support.receiving import clear, inbound, phone, receive

_CONTACTS = 500
_ECHO = "echo"


async def _echo(request: pb.SendMessageRequest, _: Any) -> pb.SendMessageResponse:
    response = pb.SendMessageResponse()
    response.message.contact_address = request.to
    response.message.body = request.body
    return response


def _echo_server() -> grpc.aio.Server:
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(
        _echo,
        request_deserializer=pb.SendMessageRequest.FromString,
        response_serializer=pb.SendMessageResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(SERVICE_NAME, {"SendMessage": method})]
    )
    return server


async def _serve(what: str) -> None:
    """Serve until standard input ends; the first line of output is the port."""
    async with contextlib.AsyncExitStack() as closing:
        if what == _ECHO:
            echo = _echo_server()
            port = echo.add_insecure_port("127.0.0.1:0")
            await echo.start()
            closing.push_async_callback(echo.stop, 1)
        else:
            database = _database(what)
            closing.push_async_callback(database.close)
            port = (await closing.enter_async_context(served(database))).port
        print(port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


@contextlib.asynccontextmanager
async def _running(what: str) -> AsyncIterator[int]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.sending", "--serve", what, stdin=pipe, stdout=pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.stdin.close()
        await process.wait()


async def _load(port: int, total: int, callers: int) -> float:
    """Calls per second, each caller waiting for its answer before the next call."""
    numbers = iter(range(total))
    async with open_channel(f"127.0.0.1:{port}", TOKEN, default_seconds=60) as channel:
        stub: Any = rpc.MessagingServiceStub(channel)

        async def call() -> None:
            for number in numbers:
                request = pb.SendMessageRequest(
                    to=phone(number % _CONTACTS), body=f"Message {number}"
                )
                await stub.SendMessage(request)

        started = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        return total / (time.perf_counter() - started)


def _database(url: str) -> Database:
    return Database(
        url, pool_size=10, max_overflow=5, pool_timeout_seconds=30, slow_query_seconds=30
    )


async def _prepare(database: Database) -> None:
    """Let every contact write, so that everything may be sent to them."""
    await clear(database)
    now = datetime.now(UTC)
    messages = [
        replace(inbound(f"SM{number}", contact=number), received_at=now)
        for number in range(_CONTACTS)
    ]
    await receive(SqlIngestStore(database), clock=lambda: now, replies=None)(messages, [])


async def _check(database: Database, total: int) -> None:
    async with database.read() as connection:
        bodies = await connection.scalar(
            select(func.count(MessageRow.body.distinct())).where(MessageRow.direction == "outbound")
        )
        waiting = await connection.scalar(select(func.count()).select_from(OutboxRow))
    if not bodies == waiting == total:
        raise SystemExit(f"{bodies} texts and {waiting} places in the outbox, of {total}")


async def _compare(url: str, total: int, callers: int, rounds: int) -> Result:
    database = _database(migrated(url))
    ratios, sent, echoed = [], [], []
    try:
        for number in range(rounds):
            await _prepare(database)
            async with _running(_ECHO) as port:
                await _load(port, total // 10, callers)
                echo = await _load(port, total, callers)
            async with _running(url) as port:
                ours = await _load(port, total, callers)
            await _check(database, total)
            ratios.append(ours / echo)
            sent.append(ours)
            echoed.append(echo)
            say(
                f"{database.dialect}, round {number + 1}: SendMessage {ours:,.0f}/s, "
                f"echo {echo:,.0f}/s, ratio {ratios[-1]:.2f}"
            )
    finally:
        await database.close()
    return Result(
        f"SendMessage, {database.dialect}",
        ratios,
        against="a bare gRPC echo",
        details=f"{statistics.median(sent):,.0f}/s, {statistics.median(echoed):,.0f}/s",
    )


def measure(options: argparse.Namespace) -> list[Result]:
    """Compare on either database."""
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        server = PostgresServer(Path(folder) / "postgres")
        try:
            with server.database() as url:
                return [
                    uvloop.run(_compare(one, options.messages, options.callers, options.rounds))
                    for one in (f"sqlite:///{folder}/switchboard.db", url)
                ]
        finally:
            server.stop()


def main() -> None:
    """Run the comparison, or one of its servers."""
    if sys.argv[1:2] == ["--serve"]:
        uvloop.run(_serve(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=5_000)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    results.run(parser, measure, quick={"messages": 1_000, "rounds": 1})


if __name__ == "__main__":
    main()

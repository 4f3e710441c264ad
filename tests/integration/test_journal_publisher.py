"""The journal's publisher against a real NATS that fsyncs."""

import asyncio
from datetime import UTC, datetime

import pytest

from services.common.journal import publisher
from services.common.journal.events import EventKind, JournalEvent
from services.common.journal.publisher import JournalPublisher
from services.common.journal.putting import JournalUnavailableError
from services.common.journal.streams import INGEST_STREAM, ensure_streams
from services.common.tracing import new_traceparent
from tests.support.edge import journal_client, stored, until
from tests.support.nats import NatsServer


def event(key: str, data: bytes = b"data") -> JournalEvent:
    return JournalEvent(
        kind=EventKind.WHATSAPP_MESSAGE,
        key=key,
        source="/webhook/whatsapp/incoming",
        time=datetime(2026, 1, 1, tzinfo=UTC),
        data=data,
        traceparent=new_traceparent(),
    )


async def keys(server: NatsServer) -> list[str]:
    return [
        JournalEvent.parse(message.headers, message.data).key
        for message in await stored(server.url)
    ]


async def test_events_published_together_are_each_one_message(nats_server: NatsServer) -> None:
    """Many at once all end up in the journal, each whole and once, in order."""
    async with journal_client(nats_server.url) as client:
        journal = JournalPublisher(client, max_batch=64)
        events = [event(f"message:{n}", bytes([n % 256])) for n in range(500)]
        await asyncio.gather(*map(journal.publish, events))
    messages = await stored(nats_server.url)
    assert [JournalEvent.parse(m.headers, m.data) for m in messages] == events
    assert {m.subject for m in messages} == {"ingest.whatsapp.message"}


async def test_requests_of_one_burst_share_a_commit(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that come one after the other, as the loop reads them, are one batch."""
    # A busy machine may not turn the loop thirty times within the usual limit.
    monkeypatch.setattr(publisher, "_GATHER_SECONDS", 10)
    async with journal_client(nats_server.url) as client:
        journal = JournalPublisher(client)

        async def publish_in_turn(number: int) -> None:
            for _ in range(number):
                await asyncio.sleep(0)
            await journal.publish(event(f"message:{number}"))

        await asyncio.gather(*map(publish_in_turn, range(30)))
    batches = {(m.headers or {}).get("Nats-Batch-Id") for m in await stored(nats_server.url)}
    assert len(batches) == 1
    assert batches != {None}


async def test_a_key_published_twice_at_once_is_stored_once(nats_server: NatsServer) -> None:
    """Both publishers of the same event succeed, and the journal holds one."""
    async with journal_client(nats_server.url) as client:
        journal = JournalPublisher(client)
        same = [event("message:same") for _ in range(50)]
        others = [event(f"message:{n}") for n in range(50)]
        await asyncio.gather(*map(journal.publish, [*same, *others, *same]))
    assert sorted(await keys(nats_server)) == sorted(["message:same", *(e.key for e in others)])


async def test_a_batch_with_a_known_key_still_stores_the_rest(nats_server: NatsServer) -> None:
    """JetStream refuses the whole batch; nothing of it is lost or doubled."""
    async with journal_client(nats_server.url) as client:
        journal = JournalPublisher(client)
        await journal.publish(event("message:5"))
        await asyncio.gather(*(journal.publish(event(f"message:{n}")) for n in range(20)))
    assert sorted(await keys(nats_server)) == sorted(f"message:{n}" for n in range(20))


async def test_without_a_connection_nothing_piles_up(nats_server: NatsServer) -> None:
    """A publish without a broker fails at once and leaves nothing in the client's buffer."""
    async with journal_client(nats_server.url) as client:
        journal = JournalPublisher(client)
        nats_server.kill()
        await until(lambda: not client.is_connected)
        with pytest.raises(JournalUnavailableError):
            await asyncio.wait_for(journal.publish(event("message:1")), timeout=0.5)
        assert client.pending_data_size == 0


async def test_a_frozen_broker_fails_publishes_by_their_deadline(nats_server: NatsServer) -> None:
    """Every waiting publish ends in time, however many commits stand before it."""
    async with journal_client(nats_server.url) as client:
        journal = JournalPublisher(client, timeout_seconds=1, max_batch=4, max_commits=1)
        nats_server.pause()
        # One deadline after the other would take twenty seconds.
        results = await asyncio.wait_for(
            asyncio.gather(
                *(journal.publish(event(f"message:{n}")) for n in range(80)),
                return_exceptions=True,
            ),
            timeout=10,
        )
        assert all(isinstance(result, JournalUnavailableError) for result in results)
        nats_server.resume()
        await until(lambda: journal.connected)
        await asyncio.gather(*(journal.publish(event(f"message:{n}")) for n in range(20)))
    assert sorted(await keys(nats_server)) == sorted(f"message:{n}" for n in range(20))


async def test_a_frozen_broker_is_not_waited_for_again(nats_server: NatsServer) -> None:
    """After one publish without an answer others are refused at once, until the broker answers."""
    async with journal_client(nats_server.url) as client:
        journal = JournalPublisher(client, timeout_seconds=1)
        nats_server.pause()
        with pytest.raises(JournalUnavailableError):
            await journal.publish(event("message:1"))
        refused = asyncio.create_task(journal.publish(event("message:2")))
        await asyncio.sleep(0)
        assert refused.done()
        with pytest.raises(JournalUnavailableError):
            await refused
        assert client.is_connected
        nats_server.resume()
        await until(lambda: journal.connected)
        await journal.publish(event("message:2"))
        await journal.close()
    assert sorted(await keys(nats_server)) == ["message:1", "message:2"]


async def test_a_journal_that_confirms_nothing_is_not_waited_for_again(
    nats_server: NatsServer,
) -> None:
    """A broker may answer questions and confirm no event, as after a full disk: while it does so,
    one event at a time is tried, and others are refused at once."""
    async with journal_client(nats_server.url) as client:
        js = client.jetstream()
        journal = JournalPublisher(client, timeout_seconds=1)
        config = (await js.stream_info(INGEST_STREAM)).config
        await js.update_stream(config.evolve(no_ack=True))
        with pytest.raises(JournalUnavailableError):
            await journal.publish(event("message:1"))
        for n in range(10):
            await js.stream_info(INGEST_STREAM)
            refused = asyncio.create_task(journal.publish(event(f"message:refused {n}")))
            await asyncio.sleep(0)
            assert refused.done()
            with pytest.raises(JournalUnavailableError):
                await refused
        assert journal.trouble
        await js.update_stream(config)
        await until(lambda: journal.connected)
        assert not journal.trouble
        await journal.publish(event("message:2"))
        await journal.close()
    assert await keys(nats_server) == ["message:1", "message:2"]


async def test_those_in_the_queue_of_a_silent_journal_are_refused_with_the_first(
    nats_server: NatsServer,
) -> None:
    """Whoever waits for a later commit isn't kept until its own deadline."""
    async with journal_client(nats_server.url) as client:
        journal = JournalPublisher(client, timeout_seconds=1, max_commits=1)
        nats_server.pause()
        first = asyncio.create_task(journal.publish(event("message:1")))
        await asyncio.sleep(0.5)
        second = asyncio.create_task(journal.publish(event("message:2")))
        await asyncio.wait([first])
        await asyncio.sleep(0)
        assert second.done()
        assert isinstance(second.exception(), JournalUnavailableError)
        assert isinstance(first.exception(), JournalUnavailableError)
        nats_server.resume()
        await journal.close()


async def test_a_journal_without_its_stream_is_trouble(nats_server: NatsServer) -> None:
    """Whoever asks why nothing is stored hears it, and that it is over."""
    async with journal_client(nats_server.url) as client:
        js = client.jetstream()
        await js.delete_stream(INGEST_STREAM)
        journal = JournalPublisher(client)
        with pytest.raises(JournalUnavailableError):
            await journal.publish(event("message:1"))
        assert journal.trouble
        await ensure_streams(js, replicas=1, max_bytes=1_000_000)
        await journal.publish(event("message:1"))
        assert not journal.trouble


async def test_a_full_stream_refuses_and_forgets_nothing(nats_server: NatsServer) -> None:
    """At its limit the journal refuses the new event and keeps the old ones."""
    async with journal_client(nats_server.url) as client:
        await ensure_streams(client.jetstream(), replicas=1, max_bytes=20_000)
        journal = JournalPublisher(client)
        for n in range(3):
            await journal.publish(event(f"message:{n}", b"x" * 5000))
        results = await asyncio.gather(
            *(journal.publish(event(f"message:{n}", b"x" * 5000)) for n in range(3, 9)),
            return_exceptions=True,
        )
    assert any(isinstance(result, JournalUnavailableError) for result in results)
    assert (await keys(nats_server))[:3] == ["message:0", "message:1", "message:2"]
    confirmed = 3 + sum(result is None for result in results)
    assert len(await keys(nats_server)) == confirmed


async def test_no_stream_is_unavailable(nats_server: NatsServer) -> None:
    """Before the streams exist a publish fails; it is not taken for stored."""
    async with journal_client(nats_server.url) as client:
        await client.jetstream().delete_stream("INGEST")
        journal = JournalPublisher(client)
        with pytest.raises(JournalUnavailableError):
            await journal.publish(event("message:1"))


async def test_too_many_waiting_are_refused(nats_server: NatsServer) -> None:
    """The queue is bounded; what doesn't fit is refused at once, the rest is stored."""
    async with journal_client(nats_server.url) as client:
        journal = JournalPublisher(client, max_waiting=10)
        results = await asyncio.gather(
            *(journal.publish(event(f"message:{n}")) for n in range(30)), return_exceptions=True
        )
    assert sum(result is None for result in results) == 10
    assert len(await keys(nats_server)) == 10


async def test_giving_up_on_one_publish_leaves_its_twin_alone(nats_server: NatsServer) -> None:
    """A caller that is cancelled doesn't take others with it that wait for the same key."""
    async with journal_client(nats_server.url) as client:
        journal = JournalPublisher(client)
        first = asyncio.create_task(journal.publish(event("message:1")))
        second = asyncio.create_task(journal.publish(event("message:1")))
        await asyncio.sleep(0)
        first.cancel()
        await second
    assert await keys(nats_server) == ["message:1"]

"""`switchboard dead` as a process, with a real NATS server."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from nats.aio.client import Client

from services.common.journal.dead import DeadLetterStream
from services.common.journal.events import EventKind, JournalEvent
from services.common.journal.streams import INGEST_STREAM
from services.messaging.domain.contact import InboundMessage
from services.messaging.domain.message import StatusReport
from tests.support.cli import Ended, ended, start
from tests.support.journal import consuming, dead, journal, publish, settled
from tests.support.nats import NatsServer
from tests.support.receiving import OWN, message_event, webhook_event
from tests.support.sending import until

Switchboard = Callable[..., Awaitable[Ended]]


@pytest.fixture
def switchboard(nats_server: NatsServer, tmp_path: Path) -> Switchboard:
    """Runs a command against the test's NATS server."""

    async def run(*arguments: str, said: str = "") -> Ended:
        environ = {"NATS_URL": nats_server.url}
        return await ended(await start(*arguments, folder=tmp_path, environ=environ), said)

    return run


class Inbox:
    """A handler that takes what it doesn't refuse."""

    def __init__(self, *refused: str) -> None:
        self.refused = set(refused)
        self.taken: list[str] = []

    async def __call__(
        self, messages: Sequence[InboundMessage], reports: Sequence[StatusReport]
    ) -> None:
        if self.refused & {one.provider_message_id for one in messages}:
            raise ValueError("a value doesn't fit its column")
        self.taken += [one.provider_message_id for one in messages]


def unreadable(number: int, body: str = "שלום") -> JournalEvent:
    """A message without an address, which is never understood."""
    return webhook_event(
        EventKind.WHATSAPP_MESSAGE,
        f"message:SMbad{number}",
        {"MessageSid": f"SMbad{number}", "From": "who?", "To": OWN, "Body": body},
    )


async def buried(client: Client, inbox: Inbox, *events: JournalEvent) -> None:
    """Have events consumed until each is taken or dead."""
    await publish(client, *events)
    async with consuming(client, inbox):
        await until(settled(client))


async def test_letters_are_listed_by_reason_newest_last(
    nats_server: NatsServer, switchboard: Switchboard
) -> None:
    """The list has number, time, subject, tries, reason and key; it can be limited and filtered."""
    async with journal(nats_server) as client:
        empty = await switchboard("dead", "list")
        assert (empty.code, empty.out) == (0, "There are no dead letters.\n")
        events = [unreadable(1), message_event(2), unreadable(3), message_event(4)]
        await buried(client, Inbox("SM00000002"), *events)

        listed = await switchboard("dead", "list")
        assert listed.code == 0, listed.err
        head, *lines = listed.out.splitlines()
        assert head.split() == ["NUMBER", "TIME", "SUBJECT", "TRIES", "REASON", "KEY"]
        assert len(lines) == 3
        assert sorted(line.split()[-1] for line in lines) == [
            "message:SM00000002",
            "message:SMbad1",
            "message:SMbad3",
        ]
        assert all("dead.whatsapp.message" in line for line in lines)
        assert [line.split()[0] for line in lines] == ["1", "2", "3"]

        limited = await switchboard("dead", "list", "--limit", "1")
        assert [line.split()[0] for line in limited.out.splitlines()[1:2]] == ["3"]
        assert "newest 1 of 3" in limited.out
        filtered = await switchboard("dead", "list", "--reason", "FIT ITS COLUMN")
        assert len(filtered.out.splitlines()) == 2
        none = await switchboard("dead", "list", "--reason", "no such reason")
        assert (none.code, none.out) == (0, "No letter has this reason.\n")


async def test_a_letter_is_shown_with_what_the_webhook_said(
    nats_server: NatsServer, switchboard: Switchboard
) -> None:
    """Headers and parameters are readable, harmless to the terminal, and raw on request."""
    async with journal(nats_server) as client:
        event = unreadable(1, body="שלום \x1b[2J\u202eevil\n")
        await buried(client, Inbox(), event)
        await client.jetstream().publish("ingest.whatsapp.message", b"\xff\xfe", timeout=60)
        async with consuming(client, Inbox()):
            await until(settled(client))

        shown = await switchboard("dead", "show", "1")
        assert shown.code == 0, shown.err
        assert "Reason: From: is neither a phone number" in shown.out
        assert "  ce-id: message:SMbad1\n" in shown.out
        assert "  dead-deliveries: 1\n" in shown.out
        assert "  Body: שלום \\x1b[2J\\u202eevil\\n\n" in shown.out
        assert "\x1b" not in shown.out

        raw = await start(
            "dead", "show", "1", "--raw", folder=Path.cwd(), environ={"NATS_URL": nats_server.url}
        )
        out, _ = await raw.communicate()
        assert out == event.data

        garbage = await switchboard("dead", "show", "2")
        assert "is no WebhookReceived" in garbage.out
        assert "ff fe" in garbage.out

        missing = await switchboard("dead", "show", "99")
        assert (missing.code, missing.err) == (1, "DEAD has no letter 99.\n")


async def test_a_replayed_letter_is_consumed_again(
    nats_server: NatsServer, switchboard: Switchboard
) -> None:
    """Once the reason is gone a replay brings the event through, though JetStream still knows its
    id, and takes it out of DEAD; what isn't chosen stays."""
    async with journal(nats_server) as client:
        js = client.jetstream()
        inbox = Inbox("SM00000001")
        event = message_event(1)
        # As the edge does it: inside the window, the same id would be dropped.
        await js.publish(
            event.kind.subject, event.data, headers=event.entry().named_headers(), timeout=60
        )
        await buried(client, inbox, unreadable(2))
        assert inbox.taken == []
        inbox.refused.clear()

        replayed = await switchboard("dead", "replay", "--all", "--reason", "fit its column")
        assert replayed.code == 0, replayed.err
        assert replayed.out == "1 of 1 letter replayed into the journal.\n"
        async with consuming(client, inbox):
            await until(settled(client))
        assert inbox.taken == ["SM00000001"]
        [left] = await dead(client)
        assert (left.headers or {})["ce-id"] == "message:SMbad2"
        again = await js.get_msg(INGEST_STREAM, 3)
        kept = {name for name in event.entry().named_headers() if name != "Nats-Msg-Id"}
        assert {name: (again.headers or {})[name] for name in kept} == {
            name: event.entry().named_headers()[name] for name in kept
        }
        assert not [name for name in again.headers or {} if name.startswith("dead-")]

        missing = await switchboard("dead", "replay", "2", "99")
        assert missing.code == 1
        assert missing.out == "0 of 2 letters replayed into the journal.\n"
        assert missing.err.splitlines() == ["DEAD has no letter 2.", "DEAD has no letter 99."]


async def test_what_dies_again_is_a_new_letter(
    nats_server: NatsServer, switchboard: Switchboard
) -> None:
    """A replay that doesn't help loses nothing: the event is back in DEAD under a new number."""
    async with journal(nats_server) as client:
        await buried(client, Inbox(), unreadable(1))
        for number in (1, 2):
            assert (await switchboard("dead", "replay", str(number))).code == 0
            async with consuming(client, Inbox()):
                await until(settled(client))
        [letter] = await dead(client)
        assert letter.metadata.sequence.stream == 3
        assert letter.data == unreadable(1).data
        assert (letter.headers or {})["ce-id"] == "message:SMbad1"


async def test_a_replay_tried_again_is_one_event(nats_server: NatsServer) -> None:
    """A replay that broke off before the letter was removed doesn't put it there twice."""
    async with journal(nats_server) as client:
        js = client.jetstream()
        await buried(client, Inbox(), unreadable(1))
        with pytest.raises(ConnectionError):
            await _DyingLetters(js).replay(1)
        assert len(await dead(client)) == 1
        await DeadLetterStream(js).replay(1)
        assert await dead(client) == []
        assert (await js.stream_info(INGEST_STREAM)).state.messages == 2


class _DyingLetters(DeadLetterStream):
    async def _remove(self, sequence: int) -> None:
        raise ConnectionError


async def test_data_left_out_for_its_size_comes_from_the_journal(
    nats_server: NatsServer, switchboard: Switchboard
) -> None:
    """A letter without its data is replayed whole, and stays when the journal has it no more."""
    async with journal(nats_server) as client:
        js = client.jetstream()
        inbox = Inbox("SM00000001")
        body = "x" * (client.max_payload - 1500)
        await buried(client, inbox, message_event(1, body=body))
        [letter] = await dead(client)
        assert letter.data == b""
        inbox.refused.clear()
        assert (await switchboard("dead", "replay", "1")).code == 0
        async with consuming(client, inbox):
            await until(settled(client))
        assert inbox.taken == ["SM00000001"]

        inbox.refused.add("SM00000002")
        await buried(client, inbox, message_event(2, body=body))
        await js.purge_stream(INGEST_STREAM)
        gone = await switchboard("dead", "replay", "2")
        assert gone.code == 1
        assert "the journal has it no more" in gone.err
        assert len(await dead(client)) == 1


async def test_dropping_asks_first(nats_server: NatsServer, switchboard: Switchboard) -> None:
    """Nothing is dropped without a yes, and only what was chosen."""
    async with journal(nats_server) as client:
        await buried(client, Inbox(), *map(unreadable, range(5)))
        for answer in ("", "no\n", "\n"):
            kept = await switchboard("dead", "drop", "--all", said=answer)
            assert kept.code == 1
            assert "5 letters at 127.0.0.1" in kept.out
            assert kept.out.endswith("Nothing was dropped.\n")
        assert len(await dead(client)) == 5
        assert (await switchboard("dead", "drop", "2", "4", said="yes\n")).code == 0
        assert [one.metadata.sequence.stream for one in await dead(client)] == [1, 3, 5]
        asked = await switchboard("dead", "drop", "3", "4", said="yes\n")
        assert (asked.code, asked.out, asked.err) == (1, "", "DEAD has no letter 4.\n")
        twice = await switchboard("dead", "drop", "2", "3", "--yes")
        assert (twice.code, twice.err) == (1, "DEAD has no letter 2.\n")
        assert (await switchboard("dead", "drop", "--all", "--yes")).code == 0
        assert await dead(client) == []


async def test_mistakes_are_sentences(
    nats_server: NatsServer, tmp_path: Path, switchboard: Switchboard
) -> None:
    """No journal, no choice or a number that is none: a sentence and a code, and no traceback."""
    nowhere = await ended(await start("dead", "list", folder=tmp_path, environ={}))
    assert nowhere.code == 1
    assert "or set NATS_URL" in nowhere.err
    for arguments in (["replay"], ["drop", "1", "--all"], ["show", "-1"], ["show", "0"]):
        assert (await switchboard("dead", *arguments)).code == 2
    assert (await switchboard("dead", "replay", "1", "--reason", "x")).code == 2
    # The streams aren't there yet.
    assert (await switchboard("dead", "list")).err == "there is no stream DEAD.\n"
    nats_server.stop()
    away = await switchboard("dead", "list")
    assert away.code == 1
    assert "can't be reached" in away.err
    assert "Traceback" not in away.err

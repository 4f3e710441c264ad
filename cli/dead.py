"""`switchboard dead`: look at the events that could not be processed, replay them, drop them."""

import asyncio
import contextlib
import io
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from google.protobuf.message import DecodeError
from switchboard.events.v1.events_pb2 import WebhookReceived

from cli.journal import Installation, JournalError
from cli.progress import progress
from services.common.errors import SwitchboardError
from services.common.journal.dead import DeadLetter, DeadLetterStream
from services.common.lifecycle import EXIT_CONFIGURATION
from services.common.settings import ConfigurationError

_TIME = "%Y-%m-%d %H:%M:%SZ"

Work = Callable[[DeadLetterStream, Installation], Awaitable[int]]


def list_letters(*, reason: str | None, limit: int, env_file: Path | None) -> int:
    """Print the newest letters, one a line, the newest last.

    Args:
        reason: Only letters whose reason holds this text, in whatever case.
        limit: At most so many.
    """

    async def work(dead: DeadLetterStream, _: Installation) -> int:
        newest: deque[DeadLetter] = deque(maxlen=limit)
        found = 0
        async with _scanning(dead, reason) as letters:
            async for letter in letters:
                newest.append(letter)
                found += 1
        if not found:
            print("There are no dead letters." if reason is None else "No letter has this reason.")
            return 0
        rows = [("NUMBER", "TIME", "SUBJECT", "TRIES", "REASON", "KEY"), *map(_row, newest)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
        for *cells, last in rows:
            print("  ".join([*map(str.ljust, cells, widths), last]))
        if found > len(newest):
            print(f"These are the newest {len(newest):,} of {found:,}. More: --limit {found}")
        return 0

    return _run(work, env_file)


def show_letter(sequence: int, *, raw: bool, env_file: Path | None) -> int:
    """Print a letter's headers and what the webhook said, or with `raw` its data as it is."""

    async def work(dead: DeadLetterStream, _: Installation) -> int:
        letter = await dead.get(sequence)
        if raw:
            sys.stdout.buffer.write(letter.data)
            sys.stdout.buffer.flush()
            return 0
        print(f"Letter {letter.sequence} of {letter.time:{_TIME}}, {letter.subject}")
        print(f"Reason: {_printable(letter.reason)}")
        print("\nHeaders")
        _print_pairs(sorted(letter.headers.items()))
        _print_data(letter)
        return 0

    return _run(work, env_file)


def replay_letters(
    sequences: Sequence[int], *, every: bool, reason: str | None, env_file: Path | None
) -> int:
    """Put letters back into the journal, where messaging takes them up again."""

    async def work(dead: DeadLetterStream, _: Installation) -> int:
        chosen = await _chosen(dead, sequences, every, reason)
        done = await _each(chosen, "Replaying", dead.replay)
        print(f"{done:,} of {_letters(len(chosen))} replayed into the journal.")
        return 0 if done == len(chosen) else 1

    return _run(work, env_file)


def drop_letters(
    sequences: Sequence[int], *, every: bool, reason: str | None, yes: bool, env_file: Path | None
) -> int:
    """Remove letters for good, once somebody has said yes."""

    async def work(dead: DeadLetterStream, installation: Installation) -> int:
        chosen = await _chosen(dead, sequences, every, reason)
        if not yes and not every:
            for sequence in chosen:
                await dead.get(sequence)
        if chosen and not yes and not _confirmed(chosen, installation.place):
            print("Nothing was dropped.")
            return 1
        done = await _each(chosen, "Dropping", dead.drop)
        print(f"{done:,} of {_letters(len(chosen))} dropped.")
        return 0 if done == len(chosen) else 1

    return _run(work, env_file)


def _run(work: Work, env_file: Path | None) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that can't show a letter of a contact's language is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")

    async def connected() -> int:
        installation = Installation(env_file)
        async with installation.journal() as js:
            return await work(DeadLetterStream(js), installation)

    try:
        code = asyncio.run(connected())
        sys.stdout.flush()
        return code
    except (FileNotFoundError, ConfigurationError) as error:
        print(f"{error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except (JournalError, SwitchboardError) as error:
        print(f"{error}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Nobody reads any more, as in `switchboard dead list | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


@asynccontextmanager
async def _scanning(
    dead: DeadLetterStream, reason: str | None
) -> AsyncIterator[AsyncIterator[DeadLetter]]:
    """The letters with this reason, while showing how far it has got."""

    async def matching() -> AsyncIterator[DeadLetter]:
        async for letter in everything:
            advance()
            if reason is None or reason.lower() in letter.reason.lower():
                yield letter

    with progress("Reading", await dead.size()) as advance:
        async with contextlib.aclosing(dead.letters()) as everything:
            yield matching()


async def _chosen(
    dead: DeadLetterStream, sequences: Sequence[int], every: bool, reason: str | None
) -> list[int]:
    if not every:
        return list(dict.fromkeys(sequences))
    async with _scanning(dead, reason) as letters:
        return [letter.sequence async for letter in letters]


async def _each(sequences: Sequence[int], verb: str, act: Callable[[int], Awaitable[None]]) -> int:
    """Act on letters one by one; returns with how many it worked, and says why not with others."""
    done = 0
    with progress(verb, len(sequences)) as advance:
        for sequence in sequences:
            try:
                await act(sequence)
                done += 1
            except SwitchboardError as error:
                print(f"{error}.", file=sys.stderr)
                if error.retryable:
                    break
            advance()
    return done


def _confirmed(sequences: Sequence[int], place: str) -> bool:
    print(
        f"{_letters(len(sequences))} at {place} will be gone for good. Type yes to go on: ",
        end="",
        flush=True,
    )
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print()
    return answer.strip().lower() in ("y", "yes")


def _letters(count: int) -> str:
    return "1 letter" if count == 1 else f"{count:,} letters"


def _row(letter: DeadLetter) -> tuple[str, ...]:
    cells = (letter.subject, letter.deliveries, letter.reason, letter.key)
    return f"{letter.sequence}", f"{letter.time:{_TIME}}", *map(_printable, cells)


def _print_data(letter: DeadLetter) -> None:
    if not letter.data:
        omitted = (
            " It was too large, and the journal has it no more." if letter.data_omitted else ""
        )
        print(f"\nThere is no data.{omitted}")
        return
    try:
        webhook = WebhookReceived.FromString(letter.data)
    except DecodeError:
        print(f"\nThe data, {len(letter.data):,} bytes, is no WebhookReceived. It begins with")
        print(f"  {letter.data[:64].hex(' ')}")
        print("All of it: --raw")
        return
    received = webhook.received_at.ToJsonString() if webhook.HasField("received_at") else "unknown"
    print(f"\nWebhook of {_printable(webhook.provider) or 'nobody'}, received {received}")
    for title, parameters in (
        ("Parameters", webhook.parameters),
        ("Query parameters", webhook.query_parameters),
    ):
        if parameters:
            print(f"\n{title}")
            _print_pairs([(one.name, one.value) for one in parameters])


def _print_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    for name, value in pairs:
        print(f"  {_printable(name)}: {_printable(value)}")


def _printable(text: str) -> str:
    """Text whose control characters are spelled out: a contact's words must not steer a terminal,
    nor turn it to another direction."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )

"""`python -m services.messaging.replay`: the journal once more into the database.

It stores what the consumer would store, and what messaging did, as far as the database doesn't have
it yet. Nothing is sent and nothing is answered. The journal and its consumer are left as they are.
"""
# ruff: noqa: T201 - It is a command: it prints.

import argparse
import asyncio
import contextlib
import functools
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import nats.errors
import uvloop
from nats.js import JetStreamContext
from sqlalchemy.exc import SQLAlchemyError

from services.common.errors import UnavailableError
from services.common.journal.client import NatsClient
from services.common.journal.streams import connect
from services.common.lifecycle import run_once
from services.common.settings import split_list
from services.messaging.baileys_wiring import baileys_events
from services.messaging.consumers.replay_progress import ReplayProgress
from services.messaging.consumers.replay_storing import ReplayStoring
from services.messaging.consumers.replaying import ACT, CALL, Replay
from services.messaging.domain.opt_out import OptOutWords
from services.messaging.providers.baileys.addresses import PROVIDER as BAILEYS
from services.messaging.providers.twilio import voice_webhooks
from services.messaging.providers.twilio import webhooks as twilio_webhooks
from services.messaging.settings import MessagingSettings
from services.messaging.store.calls import SqlCallStore
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.migrate import current, needs_upgrade, upgrade
from services.messaging.store.restoring import SqlActRestorer
from services.messaging.usecases.calls.restore import RestoreCalls
from services.messaging.usecases.calls.take_in import TakeInCalls
from services.messaging.usecases.receive import Receive

EXIT_STOPPED = 130
"""As a shell reports an end by Ctrl-C."""

_CONNECT_SECONDS = 10.0
_SHOWN_SKIPS = 20
_REDRAW_SECONDS = 0.2
_LINE_SECONDS = 5.0
_SHOWN_TIME = "%Y-%m-%d %H:%M:%SZ"


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay and exit: 0 when all of it is in the database, 1 when not, 130 when stopped."""
    parser = argparse.ArgumentParser(prog="python -m services.messaging.replay")
    parser.add_argument(
        "--since", type=_time, required=True, help="journaled then or later, RFC 3339"
    )
    parser.add_argument("--until", type=_time, help="journaled before then, RFC 3339")
    parser.add_argument(
        "--kind", choices=("message", "status", CALL, ACT), help="only events of this kind"
    )
    parser.add_argument(
        "--backup",
        action="store_true",
        help="the database is a backup: what it holds as unsent may have been sent since",
    )
    args = parser.parse_args(arguments)
    if args.until and args.until <= args.since:
        parser.error("--until must be later than --since")
    run_once("replay", MessagingSettings, functools.partial(_run, args))


def _run(args: argparse.Namespace, settings: MessagingSettings) -> None:
    try:
        _prepare(settings.database_url.get_secret_value())
        code = uvloop.run(_replay(args, settings))
    except UnavailableError as error:
        sys.exit(f"{error}.")
    except KeyboardInterrupt:
        code = EXIT_STOPPED
    sys.exit(code)


def _prepare(url: str) -> None:
    """See that the tables are there; an empty database gets them."""
    try:
        if current(url) is None:
            print("The database is empty: creating its tables", file=sys.stderr)
            upgrade(url)
        elif needs_upgrade(url):
            sys.exit(
                "The database needs migrating first: run `python -m services.messaging.migrate`."
            )
    except SQLAlchemyError as error:
        # The driver's own words hold the address and no password.
        cause = str(getattr(error, "orig", None) or type(error).__name__).strip().split("\n")[0]
        raise UnavailableError(f"the database can't be used: {cause}") from error


async def _replay(args: argparse.Namespace, settings: MessagingSettings) -> int:
    stop = asyncio.Event()
    _stop_on_signals(stop)
    database = Database(
        settings.database_url.get_secret_value(),
        pool_size=1,
        max_overflow=1,
        pool_timeout_seconds=settings.database_pool_timeout_seconds,
        slow_query_seconds=settings.slow_query_ms / 1000,
    )
    store = SqlIngestStore(database)
    restorer = SqlActRestorer(database, _now)
    calls = SqlCallStore(database, _now)
    receive = Receive(
        store,
        OptOutWords(split_list(settings.opt_out_words), split_list(settings.opt_in_words)),
        replies=None,
        clock=_now,
        on_stored=lambda: None,
    )
    progress = ReplayProgress()
    unsettled = 0
    try:
        async with _journal(settings.nats_url.get_secret_value()) as js:
            storing = ReplayStoring(
                receive,
                restorer,
                take_in_calls=TakeInCalls(calls, RestoreCalls(calls, clock=_now), calls_at_once=1),
                join=store.join,
                progress=progress,
            )
            replay = Replay(
                js,
                storing,
                {twilio_webhooks.PROVIDER: twilio_webhooks, BAILEYS: baileys_events(settings)},
                voice_translators={twilio_webhooks.PROVIDER: voice_webhooks},
                progress=progress,
            )
            if args.backup:
                await restorer.doubt()
            shown = asyncio.create_task(_show(progress))
            try:
                await replay.run(since=args.since, until=args.until, kind=args.kind, stop=stop)
                if progress.complete:
                    await store.apply_parked()
                    unsettled = await restorer.release()
            finally:
                shown.cancel()
                await asyncio.gather(shown, return_exceptions=True)
    except nats.errors.Error as error:
        raise UnavailableError(f"the journal doesn't answer: {error}") from error
    finally:
        await database.close()
        if progress.complete or progress.total:
            _report(progress, args.since, unsettled)
    if not progress.complete:
        return EXIT_STOPPED
    return 1 if progress.failed else 0


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            # The next one ends it at once.
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)


@contextlib.asynccontextmanager
async def _journal(url: str) -> AsyncIterator[JetStreamContext]:
    client = NatsClient()

    async def on_closed() -> None:
        """What is under way then fails by itself."""

    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            await connect(url, name="switchboard-replay", on_closed=on_closed, client=client)
    except (TimeoutError, OSError) as error:
        await client.close()
        raise UnavailableError("NATS doesn't answer") from error
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def _show(progress: ReplayProgress) -> None:
    """Tell how far it is: one line that changes on a terminal, a line now and then elsewhere."""
    terminal = sys.stderr.isatty()
    before, rate = 0, 0.0
    pause = _REDRAW_SECONDS if terminal else _LINE_SECONDS
    try:
        while True:
            await asyncio.sleep(pause)
            latest = (progress.read - before) / pause
            # Smoothed, so that it can be read.
            rate = latest if not before else 0.8 * rate + 0.2 * latest
            before = progress.read
            line = (
                f"{progress.read:,} of {progress.total:,} events"
                f" ({progress.percent:.0f} %), {rate:,.0f} a second"
            )
            print(
                f"\r\x1b[K{line}" if terminal else line,
                end="" if terminal else "\n",
                file=sys.stderr,
                flush=True,
            )
    finally:
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _report(progress: ReplayProgress, since: datetime, unsettled: int) -> None:
    known = progress.messages - progress.stored
    print(
        f"{progress.read:,} of {progress.total:,} events replayed"
        f"{_span(progress.oldest, progress.position)}.\n"
        f"  messages  {progress.messages:,}: {progress.stored:,} new, {known:,} known already\n"
        f"  statuses  {progress.reports:,}: {progress.applied:,} about messages that are here, "
        f"{progress.parked:,} parked until theirs is known\n"
        f"  calls     {progress.calls:,}: what webhooks told of them\n"
        f"  acts      {progress.acts:,}: {progress.restored:,} new\n"
        f"  skipped   {progress.skipped:,}"
    )
    for place, reason in progress.reasons[:_SHOWN_SKIPS]:
        print(f"    {place}: {reason}")
    if progress.skipped > _SHOWN_SKIPS:
        print(f"    and {progress.skipped - _SHOWN_SKIPS:,} more")
    if unsettled:
        print(
            f"Of {unsettled:,} messages the journal doesn't tell the end: before anything else,"
            " messaging asks the provider about them."
        )
    if not progress.complete:
        last = progress.position or since
        print(f"Not complete. Go on with --since {last.isoformat()}")


def _span(oldest: datetime | None, newest: datetime | None) -> str:
    if oldest is None or newest is None:
        return ""
    # The oldest may be later than asked for: what is older has left the journal.
    return f", journaled from {oldest:{_SHOWN_TIME}} to {newest:{_SHOWN_TIME}}"


def _now() -> datetime:
    return datetime.now(UTC)


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no RFC 3339 time with an offset")
    return time.astimezone(UTC)


if __name__ == "__main__":
    main()

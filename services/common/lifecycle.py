"""Starting and stopping a service's process."""

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog
import uvloop

from services.common.environment import process_environment
from services.common.logging import configure_logging
from services.common.settings import CommonSettings, ConfigurationError

log = structlog.get_logger(__name__)

SettingsT = TypeVar("SettingsT", bound=CommonSettings)
Loop = Callable[[], Coroutine[Any, Any, None]]
"""Begins work that goes on until it is cancelled."""

EXIT_CONFIGURATION = 78
"""Exit code for a refused configuration: EX_CONFIG of sysexits(3)."""


def run_service(
    name: str,
    settings_class: type[SettingsT],
    main: Callable[[SettingsT, asyncio.Event], Awaitable[None]],
) -> None:
    """Load the settings, then run `main` until it returns; exit non-zero when it fails.

    `main` gets the settings and an event that is set on SIGTERM or SIGINT; it should drain
    and return.
    """
    settings = _load(name, settings_class)

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await main(settings, stop)

    try:
        uvloop.run(run())
    except Exception:
        log.exception("stopped by an error")
        sys.exit(1)


def run_once(name: str, settings_class: type[SettingsT], main: Callable[[SettingsT], None]) -> None:
    """Load the settings and run `main` to its end; exit non-zero when it fails."""
    settings = _load(name, settings_class)
    try:
        main(settings)
    except Exception:
        log.exception("stopped by an error")
        sys.exit(1)


def _load(name: str, settings_class: type[SettingsT]) -> SettingsT:
    try:
        settings = settings_class.load(process_environment())
    except ConfigurationError as error:
        sys.stderr.write(f"{name} can't start. These variables need attention:\n{error}\n")
        sys.exit(EXIT_CONFIGURATION)
    configure_logging(name, settings)
    return settings


def spare_collector() -> None:
    """Keep the garbage collector from what is there by now; to be called once all is set up.

    That stays for good, and a look at all of it stops everything else for a tenth of a second, now
    and then. What a request makes is mostly freed without the collector, which may come seldom.
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def after(ready: asyncio.Event, loop: Loop) -> Loop:
    """A loop that begins once `ready` is set."""

    async def run() -> None:
        await ready.wait()
        await loop()

    return run


async def run_until_stopped(stop: asyncio.Event, *loops: Awaitable[None]) -> None:
    """Run endless loops until `stop` is set, then cancel them and wait for their end.

    Raises:
        Exception: Whatever ended a loop early; a loop that merely returns is a RuntimeError,
            for a service half alive must not go on.
    """
    tasks = [asyncio.ensure_future(loop) for loop in loops]
    stopper = asyncio.ensure_future(stop.wait())
    try:
        done, _ = await asyncio.wait([*tasks, stopper], return_when=asyncio.FIRST_COMPLETED)
        ended = next((task for task in done if task is not stopper), None)
        if ended is not None and not stop.is_set():
            ended.result()
            raise RuntimeError("a background loop ended by itself")
    finally:
        for task in (*tasks, stopper):
            task.cancel()
        await asyncio.gather(*tasks, stopper, return_exceptions=True)

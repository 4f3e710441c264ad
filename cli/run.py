"""`switchboard run`: everything on this machine, until Ctrl-C."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console

from cli.data_folder import DataFolder, FolderInUseError
from cli.environment import Environment, load_environment
from cli.run_settings import RunSettings
from cli.stack import Stack
from cli.supervisor import PartFailedError, Supervisor
from services.common.lifecycle import EXIT_CONFIGURATION
from services.common.settings import ConfigurationError, Problem, format_report

EXAMPLE_TEXT = "Is the flat in Haifa still free?"


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on in silence when nobody reads any more, as in `make run | head`."""
        self.file = Path(os.devnull).open("w")  # noqa: SIM115 - open until the process ends


def run(env_file: Path | None) -> int:
    """Start everything, wait for a signal, stop everything; returns the exit code."""
    console = _Console()
    _say(console, "Starting Switchboard")
    try:
        environment = load_environment(env_file, sandbox_allowed=True)
        settings = RunSettings.load(environment.variables)
    except FileNotFoundError as error:
        return _refuse(console, f"{error}.", EXIT_CONFIGURATION)
    except ConfigurationError as error:
        return _refuse(console, str(error), EXIT_CONFIGURATION)
    if environment.sandbox:
        _say(console, f"No .env here: using the sandbox, a pretend Twilio ({environment.file})")
    else:
        _say(console, f"Configuration: {environment.file} and the environment")
        if unread := environment.unread():
            _say(console, unread)
    folder = DataFolder(settings.switchboard_data_dir)
    try:
        with folder:
            return _run_in(folder, console, environment, settings)
    except FolderInUseError:
        return _refuse(
            console,
            f"Another Switchboard is using {folder.path}. Stop it, or choose another folder with"
            " SWITCHBOARD_DATA_DIR.",
        )
    except OSError as error:
        return _refuse(
            console,
            f"The data folder can't be used: {error}. Choose another with SWITCHBOARD_DATA_DIR.",
        )


def _run_in(
    folder: DataFolder, console: Console, environment: Environment, settings: RunSettings
) -> int:
    stack = Stack(environment, settings, folder)
    if stack.overruled:
        names = ", ".join(stack.overruled)
        _say(console, f"Set, but decided by `switchboard run` itself: {names}")
    if problems := configuration_problems(stack.variables):
        return _refuse(
            console,
            f"These variables need attention:\n{format_report(problems)}",
            EXIT_CONFIGURATION,
        )
    if problem := stack.missing_program() or port_problem(stack.ports()):
        return _refuse(console, problem)
    return asyncio.run(_start_and_watch(stack, folder, console))


def configuration_problems(variables: Mapping[str, str]) -> list[Problem]:
    """What keeps any service from starting, each variable once."""
    from cli.catalogue import SERVICES

    problems: dict[str, Problem] = {}
    for settings in SERVICES.values():
        try:
            settings.load(variables)
        except ConfigurationError as error:
            for problem in error.problems:
                problems.setdefault(problem.variable, problem)
    return list(problems.values())


def port_problem(ports: Iterable[tuple[str, str, str, int]]) -> str | None:
    """Why one of the ports can't be had, in a sentence, or None.

    Args:
        ports: Part, variable, host and number of each.
    """
    taken: dict[int, str] = {}
    for part, variable, host, port in ports:
        if port in taken:
            return f"{variable} and {taken[port]} are both {port}. Change one of them."
        taken[port] = variable
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            socket.create_server((host, port), family=family).close()
        except OSError as error:
            return (
                f"Port {port}, which {part} needs, can't be had on {host}: {error.strerror}."
                f" Stop what uses it, or choose another with {variable}."
            )
    return None


async def _start_and_watch(stack: Stack, folder: DataFolder, console: Console) -> int:
    supervisor = Supervisor(console, folder.logs)
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            supervisor.kill()
        stop.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, on_signal)
    loop.add_signal_handler(signal.SIGTERM, on_signal)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # As nohup asks.
        loop.add_signal_handler(signal.SIGHUP, on_signal)

    async def live() -> None:
        for part in stack.parts():
            await supervisor.start(part)
        folder.publish(stack.addresses)
        _welcome(console, stack, folder)
        await supervisor.watch()

    life = asyncio.create_task(live())
    stopper = asyncio.create_task(stop.wait())
    code = 0
    try:
        await asyncio.wait([life, stopper], return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            await life
    except PartFailedError as error:
        code = _refuse(console, str(error))
    finally:
        for task in (life, stopper):
            task.cancel()
        await asyncio.gather(life, stopper, return_exceptions=True)
        _say(console, "Stopping Switchboard (Ctrl-C again: at once)")
        await supervisor.stop()
    _say(console, "Switchboard has stopped")
    return code


def summary(stack: Stack, folder: DataFolder) -> dict[str, str]:
    """Where everything answers, and what is off though one variable would switch it on."""
    at = stack.addresses
    api = f"{at.webhook}/api/whatsapp" if "API_KEYS" in stack.variables else "off: set API_KEYS"
    answers = "OPENAI_API_KEY" in stack.variables
    return {
        "Webhooks": at.webhook,
        "API": api,
        **({} if answers else {"Assistant": "off: set OPENAI_API_KEY"}),
        "Status page": at.health,
        "gRPC": at.grpc,
        **({"Sandbox": at.sandbox} if at.sandbox else {}),
        **({} if stack.own_database else {"Database": "where DATABASE_URL says"}),
        "Metrics": ", ".join(f"{name} :{port}" for name, port in stack.metrics_ports.items()),
        "Data": str(folder.path),
        "Logs": str(folder.logs),
    }


def _welcome(console: Console, stack: Stack, folder: DataFolder) -> None:
    at = stack.addresses
    for name, value in summary(stack, folder).items():
        _say(console, f"  {name:<13}  {value}")
    if at.sandbox:
        _say(console, f'Try in another terminal: make say TEXT="{EXAMPLE_TEXT}"')
        _say(console, f'or a telephone call:     make call TEXT="{EXAMPLE_TEXT} | Goodbye"')
    else:
        public = stack.variables["PUBLIC_HOST"].rstrip("/")
        _say(console, f"In Twilio's console: messages go to {public}/webhook/whatsapp/incoming,")
        _say(console, f"calls to {public}/webhook/incoming_call")
    if stack.pairs_by_hand:
        _say(console, "Link the phone, if it isn't yet: .venv/bin/switchboard baileys pair")
    _say(console, "Switchboard is ready")


def _refuse(console: Console, text: str, code: int = 1) -> int:
    console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    return code


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)

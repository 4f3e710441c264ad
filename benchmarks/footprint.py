"""What each service takes of a machine before anybody asks it for anything.

`python -m benchmarks.footprint` starts the broker and the sandbox, then each service by itself, and
prints for each the time from its start to its doing its work, and the memory it has at rest: the
resident set, and of it the proportional share, in which what others map too is divided. The bridge
to WhatsApp Web has the pretend WhatsApp for company, and is paired before it is measured.
"""

import argparse
import asyncio
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from benchmarks import results
from benchmarks.processes import memory_mb, processor_seconds
from benchmarks.results import Result, say
from cli.probes import http_answers
from cli.supervisor import Part
from cli.whatsapp import missing_program, packages_installed
from tests.support.stack import running_stack

_START_SECONDS = 60
_LOOK_SECONDS = 0.01
_NO_VENDORS = {"OPENAI_API_KEY": "", "GOOGLE_TTS_SA_JSON": ""}


@dataclass
class _Footprint:
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    share: list[float] = field(default_factory=list)


async def _until_ready(part: Part, process: "subprocess.Popen[bytes]") -> None:
    assert part.ready is not None
    deadline = time.monotonic() + _START_SECONDS
    while not await part.ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{part.name} doesn't start")
        await asyncio.sleep(_LOOK_SECONDS)


def _look(part: Part, variables: Mapping[str, str], rest: float, found: _Footprint) -> None:
    began = time.perf_counter()
    process = subprocess.Popen(
        part.command,
        env={**part.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        asyncio.run(_until_ready(part, process))
        found.seconds.append(time.perf_counter() - began)
        found.processor.append(processor_seconds(process.pid))
        time.sleep(rest)
        resident, share = memory_mb(process.pid)
        found.resident.append(resident)
        found.share.append(share)
    finally:
        process.terminate()
        process.wait(30)


def _services(options: argparse.Namespace) -> dict[str, _Footprint]:
    """Each service in turn, alone with the broker and the sandbox."""
    with (
        tempfile.TemporaryDirectory(prefix="bench") as folder,
        running_stack(Path(folder), {}, without=("messaging", "webhook", "health")) as stack,
    ):
        alive = f"{stack.addresses.health}/api/health/liveness"
        health = replace(stack.part("health"), ready=partial(http_answers, alive))
        services: dict[str, tuple[Part, Mapping[str, str]]] = {
            "webhook": (stack.part("webhook"), {}),
            "messaging": (stack.part("messaging"), {}),
            "messaging without OpenAI and Google": (stack.part("messaging"), _NO_VENDORS),
            "health": (health, {}),
        }
        found = {name: _Footprint() for name in services}
        for _ in range(options.rounds):
            for name, (part, variables) in services.items():
                _look(part, variables, options.rest, found[name])
                _tell(name, found[name])
        return found


def _bridge(options: argparse.Namespace) -> dict[str, _Footprint]:
    """The bridge, alone with the pretend WhatsApp; nothing where it can't run."""
    lacking = missing_program()
    if lacking is None and not packages_installed():
        lacking = "Its packages are installed by `tools/bridge install`."
    if lacking is not None:
        say(f"baileys: skipped. {lacking}")
        return {}
    others = ("NATS", "sandbox", "bridge", "migrations", "messaging", "webhook", "health")
    with (
        tempfile.TemporaryDirectory(prefix="bench") as folder,
        running_stack(Path(folder), {"WHATSAPP_PROVIDER": "baileys"}, without=others) as stack,
    ):
        part = stack.part("bridge")
        state = Path(part.environ["BAILEYS_QUEUE_DIR"]) / "state.json"
        found = _Footprint()
        _look(part, {}, 0, _Footprint())  # Pairs it.
        for _ in range(options.rounds):
            state.unlink()  # It says that the session of the start before is open.
            _look(part, {}, options.rest, found)
            _tell("baileys", found)
        return {"baileys": found}


def _tell(name: str, found: _Footprint) -> None:
    say(f"{name}: {found.seconds[-1]:.2f} s, {found.resident[-1]:.0f} MB")


def measure(options: argparse.Namespace) -> list[Result]:
    """Each service by itself, the bridge last."""
    found = {**_services(options), **_bridge(options)}
    return [
        *(
            Result(
                f"start, {name}",
                one.seconds,
                unit="s",
                details=f"{statistics.median(one.processor):.2f} s of processor time",
            )
            for name, one in found.items()
        ),
        *(
            Result(
                f"memory, {name}",
                one.resident,
                unit="MB",
                details=f"{statistics.median(one.share):.0f} MB where libraries are shared (PSS)",
            )
            for name, one in found.items()
        ),
    ]


def main() -> None:
    """Look at all services."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rest", type=float, default=3.0, help="seconds before memory is read")
    results.run(parser, measure, quick={"rounds": 1, "rest": 2.0})


if __name__ == "__main__":
    main()

"""Bad times for the whole system: what turns red, why, and that it turns green again."""

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.stack import RunningStack, running_stack

WRONG_CLOCK = Path(__file__).parents[1] / "support" / "wrong_clock"
RED_WITHIN_SECONDS = 10
# Machines that run tests are busy: being late by this much is theirs.
SLACK_SECONDS = 10
LATE = re.compile("no answer|doesn't answer")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The system, in its usual pace, with clocks that can be set."""
    clocks = {"PYTHONPATH": str(WRONG_CLOCK), "CLOCKS": str(tmp_path_factory.mktemp("clocks"))}
    with running_stack(tmp_path_factory.mktemp("bad"), clocks) as stack:
        until(stack, {})
        yield stack


def components(stack: RunningStack) -> dict[str, dict[str, Any]]:
    """What health reports of each component."""
    answer = httpx.get(f"{stack.addresses.health}/api/health/detailed", timeout=30, trust_env=False)
    found: dict[str, dict[str, Any]] = answer.json()["components"]
    return found


def until(
    stack: RunningStack,
    red: dict[str, str],
    *,
    degraded: dict[str, str] | None = None,
    seconds: float = RED_WITHIN_SECONDS + SLACK_SECONDS,
) -> dict[str, dict[str, Any]]:
    """The components once these alone are red and these are degraded; with neither, once all are
    well.

    Args:
        red: Patterns of their reasons, by component.
        degraded: Likewise.

    Raises:
        AssertionError: They weren't in time, or another one was red though it wasn't merely late.
    """
    wanted = {"down": red, "degraded": degraded or {}}
    ill = bool(red or degraded)
    deadline = time.monotonic() + (seconds if ill else 120)
    while True:
        found = components(stack)
        bad = {name: one["reason"] for name, one in found.items() if one["status"] == "down"}
        others = {name: reason for name, reason in bad.items() if name not in red}
        if ill:
            # A part that gets no processor is silent, too, and only for a moment.
            assert all(LATE.search(reason) for reason in others.values()), bad
        if (
            not others
            and all(
                found[name]["status"] == status and re.search(reason, found[name]["reason"])
                for status, some in wanted.items()
                for name, reason in some.items()
            )
            and (ill or all(one["status"] == "ok" for one in found.values()))
        ):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


@contextlib.contextmanager
def full_disk(stack: RunningStack, name: str) -> Iterator[None]:
    """A part that can write nothing more into any file: `EFBIG`, as `ENOSPC` on a full disk."""
    pid = stack.process(name).pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def wrong_clock(service: str, seconds: int) -> Iterator[None]:
    """Somebody sets the clock of a service."""
    file = Path(os.environ["CLOCKS"], f"services.{service}")
    file.write_text(str(seconds))
    try:
        yield
    finally:
        file.unlink()


@contextlib.contextmanager
def frozen(stack: RunningStack, name: str) -> Iterator[None]:
    """A part whose process stands still behind open connections."""
    process = stack.process(name)
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("part", "component", "reason"),
    [
        ("messaging", "messaging", "it can't be reached"),
        ("webhook", "webhook", "it can't be reached"),
        ("NATS", "nats", "no connection to NATS"),
    ],
)
def test_a_part_that_is_gone(stack: RunningStack, part: str, component: str, reason: str) -> None:
    """It alone turns red, with the reason, and green when it is back."""
    with stack.away(part):
        found = until(stack, {component: reason})
        if part == "messaging":
            assert found["database"]["status"] == "unknown"
    until(stack, {})


@pytest.mark.parametrize(
    ("part", "component", "reason"),
    [
        ("messaging", "messaging", "no answer"),
        ("webhook", "webhook", "no answer"),
        # After some seconds the client gives the connection up.
        ("NATS", "nats", "JetStream doesn't answer|no connection to NATS"),
    ],
)
def test_a_part_that_is_frozen(stack: RunningStack, part: str, component: str, reason: str) -> None:
    """An open socket is not health."""
    with frozen(stack, part):
        until(stack, {component: reason})
    until(stack, {})


def writes(stack: RunningStack, body: str = "Hello") -> httpx.Response:
    """A contact writes."""
    return stack.sandbox.post("/sandbox/contacts/+972502220099/messages", json={"body": body})


def test_a_full_disk_of_the_database(stack: RunningStack) -> None:
    """It answers every question and stores nothing: red, while events wait in the journal."""
    with full_disk(stack, "messaging"):
        until(stack, {"database": "can't write"})
        assert writes(stack).json()["webhook_status"] == 200
    until(stack, {})


def test_a_full_disk_of_the_journal(stack: RunningStack) -> None:
    """NATS goes on answering and stores nothing, also afterwards: it has to be started again."""
    with full_disk(stack, "NATS"):
        assert writes(stack).json()["webhook_status"] == 200
        until(
            stack,
            {"nats": "it doesn't confirm that events are stored"},
            degraded={"webhook": "events that wait on disk"},
        )
    with stack.away("NATS"):
        pass
    until(stack, {})


def test_a_full_disk_of_the_edge(stack: RunningStack) -> None:
    """While the journal takes events it is only a warning; without it nothing can be kept."""
    with full_disk(stack, "webhook"):
        until(stack, {}, degraded={"webhook": "the spill takes no events"})
        with stack.away("NATS"):
            until(stack, {"webhook": "neither in the journal nor on disk", "nats": "connection"})
    until(stack, {})


@pytest.mark.parametrize(
    ("service", "hour"),
    [("webhook", 3600), ("messaging", 3600), ("messaging", -3600), ("health", -3600)],
)
def test_a_clock_that_jumps(stack: RunningStack, service: str, hour: int) -> None:
    """The clocks are red and say whose it is, nothing else is, and no age jumps with it."""
    with wrong_clock(service, hour):
        way = "ahead" if hour > 0 else "behind"
        # Less what an answer was under way, which is seconds at times.
        found = until(stack, {"clocks": f"that of {service} is (359[5-9]|360[0-5]) s {way}"})
        assert all(one["age_seconds"] < 60 for one in found.values())
    until(stack, {})


def test_a_provider_that_fails(stack: RunningStack) -> None:
    """Its breaker opens and it turns red, while Switchboard stays ready."""
    stack.faults(error_500={})
    try:
        for number in range(6):
            contact = f"+97250222000{number}"
            stack.sandbox.post(f"/sandbox/contacts/{contact}/messages", json={"body": "Hello"})
        until(stack, {"whatsapp_twilio": "times in a row"}, seconds=60)
        ready = httpx.get(
            f"{stack.addresses.health}/api/health/readiness", timeout=30, trust_env=False
        )
        assert ready.status_code == 200
    finally:
        stack.faults()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium isn't on this machine")
def test_the_page_lives_in_a_browser(stack: RunningStack, tmp_path: Path) -> None:
    """Its own script and style pass its policy, and it renews itself without a reload."""
    browser = subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", f"--user-data-dir={tmp_path}",
            "--enable-logging=stderr", "--v=0", "--virtual-time-budget=12000", "--dump-dom",
            stack.addresses.health,
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )  # fmt: skip
    assert "CONSOLE" not in browser.stderr
    assert '<h1 id="headline">' in browser.stdout
    assert "Webhook edge" in browser.stdout
    # The script hides this while health answers.
    assert '<span id="lost" hidden=""' in browser.stdout

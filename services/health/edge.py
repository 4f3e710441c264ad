"""How the edge is asked. It is the part that may have been taken over: nothing it says is believed
to be of the right form.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import httpx
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from services.common.monitor import Finding, Findings
from services.health.heard import Heard
from services.health.probes import SENSELESS, SILENT, UNREACHABLE, WEBHOOK, Ask, configuration_of
from services.health.replicas import counted, origins_of, together

_MAX_ANSWER_BYTES: Final = 1024 * 1024

_Text = Annotated[str, Field(max_length=1000)]
_Number = Annotated[int, Field(ge=0, lt=2**63)]


class _Variable(BaseModel):
    model_config = ConfigDict(strict=True)

    name: _Text
    group: _Text
    set: bool


class _Answer(BaseModel):
    """What `/internal/health` says. What only newer edges say may be missing."""

    model_config = ConfigDict(strict=True)

    version: _Text
    journal_connected: bool
    journal_trouble: _Text = ""
    messaging_trouble: _Text = ""
    time: AwareDatetime | None = None
    spill_accepting: bool
    spill_events: _Number
    spill_bytes: _Number
    signatures_bypassed: bool
    variables: list[_Variable] = []


@dataclass(frozen=True, slots=True)
class _Replica:
    """One replica.

    Attributes:
        answer: None when there was none that makes sense.
        ahead: Seconds by which its clock is ahead of health's; None where it doesn't tell.
    """

    finding: Finding
    answer: _Answer | None = None
    ahead: float | None = None


def webhook_probe(
    client: httpx.AsyncClient,
    origin: str,
    heard: Heard,
    *,
    addresses: Callable[[str], Awaitable[Sequence[str]]] = origins_of,
) -> Ask:
    """Asks the edge on its internal port; it knows whether it can store events.

    Args:
        addresses: Finds the replicas that `origin` stands for; each is asked.
    """

    async def ask() -> Findings:
        origins = await addresses(origin)
        replicas = await asyncio.gather(*(_asked(client, one, heard) for one in origins))
        answers = [replica.answer for replica in replicas if replica.answer is not None]
        if answers:
            heard.journal(next((one.journal_trouble for one in answers if one.journal_trouble), ""))
        heard.clock(WEBHOOK, [one.ahead for one in replicas if one.ahead is not None])
        found = [replica.finding for replica in replicas]
        details = {
            **counted(found),
            "journal_connected": all(one.journal_connected for one in answers),
            "spill_events": sum(one.spill_events for one in answers),
            "spill_bytes": sum(one.spill_bytes for one in answers),
        }
        findings = {WEBHOOK: together(found, details)}
        if variables := next((one.variables for one in answers if one.variables), None):
            told = [variable.model_dump() for variable in variables]
            findings[configuration_of(WEBHOOK)] = Finding("ok", details={"variables": told})
        return findings

    return ask


async def _asked(client: httpx.AsyncClient, origin: str, heard: Heard) -> _Replica:
    try:
        status_code, body = await _read(client, f"{origin.rstrip('/')}/internal/health")
        answer = _Answer.model_validate_json(body)
    except httpx.TimeoutException:
        return _Replica(Finding("down", SILENT))
    except httpx.TransportError:
        return _Replica(Finding("down", UNREACHABLE))
    except (httpx.HTTPError, ValidationError):
        return _Replica(Finding("down", SENSELESS))
    ahead = heard.ahead(answer.time) if answer.time is not None else None
    return _Replica(_finding(status_code, answer), answer, ahead)


async def _read(client: httpx.AsyncClient, url: str) -> tuple[int, bytes]:
    """Status and body as it comes; none instead of one that is too long.

    A compressed one is not unpacked: it might be a thousand times as long.
    """
    body = b""
    async with client.stream("GET", url, headers={"accept-encoding": "identity"}) as response:
        async for part in response.aiter_raw():
            body += part
            if len(body) > _MAX_ANSWER_BYTES:
                return response.status_code, b""
    return response.status_code, body


def _finding(status_code: int, answer: _Answer) -> Finding:
    details = answer.model_dump(
        include={"version", "journal_connected", "spill_events", "spill_bytes"}
    )
    if status_code != httpx.codes.OK:
        reason = "events can be stored neither in the journal nor on disk"
        return Finding("down", reason, details)
    waiting = answer.spill_events
    reasons = [
        text
        for wrong, text in (
            (not answer.journal_connected, "the journal is away"),
            (not answer.spill_accepting, "the spill takes no events"),
            (waiting, f"events that wait on disk for the journal: {waiting}"),
            (answer.messaging_trouble, answer.messaging_trouble),
            (answer.signatures_bypassed, "signatures are not checked"),
        )
        if wrong
    ]
    return Finding("degraded" if reasons else "ok", "; ".join(reasons), details)

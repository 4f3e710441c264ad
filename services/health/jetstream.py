"""How NATS is asked."""

from dataclasses import replace
from typing import Final

from nats.aio.client import Client

from services.common.errors import UnavailableError
from services.common.journal.condition import JetStreamCondition, jetstream_condition
from services.common.monitor import Finding, Findings
from services.health.heard import Heard
from services.health.probes import NATS, Ask

_NEARLY_FULL: Final = 0.8


def nats_probe(client: Client, heard: Heard, *, storage_max_bytes: int = 0) -> Ask:
    """Asks the API of JetStream, and believes the edge where that can't store anything.

    Args:
        storage_max_bytes: What the server may store, where its account has no limit; 0 when that
            isn't known.
    """

    async def ask() -> Findings:
        try:
            condition = await jetstream_condition(client)
            if not condition.storage_max_bytes:
                condition = replace(condition, storage_max_bytes=storage_max_bytes)
        except UnavailableError as error:
            return {NATS: Finding("down", str(error))}
        if trouble := heard.journal_trouble:
            return {NATS: Finding("down", trouble, _details(condition))}
        full = [
            f"{name} is {used / most:.0%} full"
            for name, used, most in (
                ("the storage", condition.storage_bytes, condition.storage_max_bytes),
                *(
                    (f"the stream {one.name}", one.bytes, one.max_bytes)
                    for one in condition.streams
                ),
            )
            if most and used / most >= _NEARLY_FULL
        ]
        finding = Finding("degraded" if full else "ok", "; ".join(full), _details(condition))
        return {NATS: finding}

    return ask


def _details(condition: JetStreamCondition) -> dict[str, object]:
    return {
        "round_trip_seconds": round(condition.round_trip_seconds, 6),
        "storage_bytes": condition.storage_bytes,
        "storage_max_bytes": condition.storage_max_bytes,
        "streams": {
            stream.name: {
                "messages": stream.messages,
                "bytes": stream.bytes,
                "max_bytes": stream.max_bytes,
            }
            for stream in condition.streams
        },
    }

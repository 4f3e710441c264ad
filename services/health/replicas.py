"""Several replicas behind one name: where each is, and what they are as one."""

import asyncio
import socket
from collections import Counter
from collections.abc import Sequence

import httpx

from services.common.monitor import STATUSES, Finding, Status


async def hosts_of(host: str, port: int | str | None) -> Sequence[str]:
    """What a host's name stands for; empty when nobody can tell now.

    Addresses of one family, or the name itself where it has one in each: it may stand for the same
    machine in both.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    old = {str(address[0]) for family, *_, address in found if family == socket.AF_INET}
    new = {str(address[0]) for family, *_, address in found if family == socket.AF_INET6}
    return [host] if len(old) == len(new) == 1 else sorted(old or new)


async def origins_of(origin: str) -> Sequence[str]:
    """An origin for each address that its host's name stands for, or itself alone."""
    url = httpx.URL(origin)
    hosts = await hosts_of(url.host, url.port)
    return [str(url.copy_with(host=host)) for host in hosts] if len(hosts) > 1 else [origin]


async def targets_of(address: str) -> Sequence[str]:
    """`host:port` for each address that a gRPC server's name stands for; empty when nobody can
    tell now.
    """
    name, _, port = address.rpartition(":")
    hosts = await hosts_of(name.strip("[]"), port)
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts]


def together(found: Sequence[Finding], details: dict[str, object]) -> Finding:
    """Several replicas as one: as well as the best of them, for each takes every request, and
    degraded where another one is worse than well.

    Args:
        details: Those of all; of one alone its own are taken.
    """
    if len(found) == 1:
        return found[0]
    statuses = {finding.status for finding in found}
    best = min(statuses, key=STATUSES.index)
    status: Status = "degraded" if best == "ok" and len(statuses) > 1 else best
    reasons = Counter(finding.reason for finding in found if finding.reason)
    return Finding(
        status,
        "; ".join(f"{count} of {len(found)}: {reason}" for reason, count in reasons.items()),
        details,
        settled=all(finding.settled for finding in found),
        since=max((finding.since for finding in found if finding.since), default=None),
    )


def counted(found: Sequence[Finding]) -> dict[str, object]:
    """How many replicas there are, how many of them are down, and their versions."""
    return {
        "replicas": len(found),
        "replicas_down": sum(finding.status == "down" for finding in found),
        "version": ", ".join(
            sorted({str(one.details["version"]) for one in found if "version" in one.details})
        ),
    }

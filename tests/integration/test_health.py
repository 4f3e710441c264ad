"""Health over real sockets: components that come, suffer and go."""

import asyncio
import base64
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import segno
from switchboard.messaging.v1 import provider_pb2

from services.common.monitor import ComponentReport
from tests.support.health import FINE, KEY, Around, health, messaging, statuses, until
from tests.support.ports import free_port
from tests.support.raw_http import Raw, connected


async def test_ready_only_while_everything_critical_is(around: Around) -> None:
    """Readiness names what is missing, and comes back by itself."""
    async with health(**around.addresses()) as client:
        response = await until(
            client, "/api/health/readiness", lambda r: set(r.json()["reasons"]) == {"messaging"}
        )
        assert response.status_code == 503
        async with messaging(around.messaging_port):
            await until(client, "/api/health/readiness", lambda r: r.status_code == 200)
        gone = await until(client, "/api/health/readiness", lambda r: "reached" in r.text)
        assert gone.json()["reasons"].keys() == {"messaging", "database"}
        assert (await client.get("/api/health/liveness")).status_code == 200
        async with messaging(around.messaging_port):
            await until(client, "/api/health/readiness", lambda r: r.status_code == 200)


async def test_what_only_messaging_sees_is_unknown_without_it(around: Around) -> None:
    """A component that can't be asked is never called broken."""
    async with health(**around.addresses()) as client:
        async with messaging(around.messaging_port):
            await statuses(client, database="ok", status="ok")
        report = await statuses(client, messaging="down", database="unknown", status="down")
        components = report["components"]
        assert components["database"]["reason"] == "messaging can't be asked"
        assert components["messaging"]["reason"] == "it can't be reached"
        assert components["nats"]["status"] == "ok"
        assert components["webhook"]["status"] == "ok"


async def test_a_detail_is_told_of_whom_it_is_told(around: Around) -> None:
    """Looking for one in all components gives it to none."""
    told = {
        "database": FINE,
        "whatsapp_baileys": ComponentReport("ok", "", {"needs_pairing": False}),
    }
    async with messaging(around.messaging_port, told), health(**around.addresses()) as client:
        components = (await statuses(client, database="ok", whatsapp_baileys="ok"))["components"]
        assert components["database"]["details"] == {}
        assert components["whatsapp_baileys"]["details"] == {"needs_pairing": False}


async def test_a_provider_that_is_down_degrades_the_whole(around: Around) -> None:
    """Only what is critical takes readiness away."""
    told = {
        "database": FINE,
        "whatsapp_twilio": ComponentReport("down", "failed 5 times in a row"),
    }
    async with messaging(around.messaging_port, told), health(**around.addresses()) as client:
        report = await statuses(client, whatsapp_twilio="down", status="degraded")
        assert report["components"]["whatsapp_twilio"]["reason"] == "failed 5 times in a row"
        assert (await client.get("/api/health/readiness")).status_code == 200
        told["database"] = ComponentReport("down", "the database doesn't answer")
        await statuses(client, database="down", messaging="ok", status="down")
        reasons = (await client.get("/api/health/readiness")).json()["reasons"]
        assert reasons == {"database": "the database doesn't answer"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"journal_connected": False}, "the journal is away"),
        ({"spill_accepting": False}, "the spill takes no events"),
        ({"spill_events": 3}, "events that wait on disk for the journal: 3"),
        ({"messaging_trouble": "it can't reach messaging"}, "it can't reach messaging"),
        ({"signatures_bypassed": True}, "signatures are not checked"),
    ],
)
async def test_an_edge_in_trouble_is_degraded_but_ready(
    around: Around, change: dict[str, Any], reason: str
) -> None:
    """An edge that still takes events stays ready, and health says what is wrong with it."""
    around.edge.says |= change
    async with messaging(around.messaging_port), health(**around.addresses()) as client:
        report = await statuses(client, webhook="degraded", messaging="ok", nats="ok")
        assert report["status"] == "degraded"
        assert report["components"]["webhook"]["reason"] == reason
        assert report["components"]["webhook"]["age_seconds"] < 10
        assert (await client.get("/api/health/readiness")).status_code == 200


async def test_an_edge_that_refuses_events_is_not_ready(around: Around) -> None:
    """Events that would be lost are the worst that can happen to the edge."""
    around.edge.status_code = 503
    async with messaging(around.messaging_port), health(**around.addresses()) as client:
        await statuses(client, webhook="down", status="down", messaging="ok")
        reasons = (await client.get("/api/health/readiness")).json()["reasons"]
        assert "neither" in reasons["webhook"]


@pytest.mark.parametrize("frozen", [False, True], ids=["gone", "frozen"])
async def test_nats_that_does_not_answer_is_down_until_it_does(
    around: Around, frozen: bool
) -> None:
    """Gone, or frozen behind an open connection: it alone turns red, and green again."""
    async with (
        messaging(around.messaging_port),
        health(**around.addresses(), timeout_seconds=3) as client,
    ):
        report = await statuses(client, nats="ok", status="ok")
        assert report["components"]["nats"]["details"]["round_trip_seconds"] > 0
        (around.nats.pause if frozen else around.nats.stop)()
        report = await statuses(client, nats="down", status="down")
        down = [name for name, one in report["components"].items() if one["status"] == "down"]
        assert down == ["nats"]
        (around.nats.resume if frozen else around.nats.start)()
        await statuses(client, nats="ok", status="ok")


async def test_a_journal_that_stores_nothing_is_what_is_down(around: Around) -> None:
    """NATS answers, and the edge knows better."""
    around.edge.says |= {"journal_trouble": "it refuses events: maximum bytes exceeded"}
    async with messaging(around.messaging_port), health(**around.addresses()) as client:
        report = await statuses(client, nats="down", messaging="ok", webhook="ok")
        reason = report["components"]["nats"]["reason"]
        assert reason == "it refuses events: maximum bytes exceeded"
        around.edge.says |= {"journal_trouble": ""}
        await statuses(client, nats="ok")


@pytest.mark.parametrize(("seconds", "how"), [(3600, "3600 s ahead"), (-3600, "3600 s behind")])
async def test_a_clock_that_is_wrong_is_named(around: Around, seconds: float, how: str) -> None:
    """Of clocks that differ the one is named that stands alone, and nothing else is wrong."""
    async with messaging(around.messaging_port), health(**around.addresses()) as client:
        await statuses(client, clocks="ok", messaging="ok", status="ok")
        around.edge.ahead_seconds = seconds
        report = await statuses(client, clocks="down", webhook="ok", status="degraded")
        assert report["components"]["clocks"]["reason"] == f"that of webhook is {how}"
        around.edge.ahead_seconds = 0
        await statuses(client, clocks="ok", status="ok")


async def test_a_wrong_token_is_named(around: Around) -> None:
    """The report says which variable to look at."""
    async with (
        messaging(around.messaging_port),
        health(**around.addresses(), token="another-token") as client,
    ):
        report = await statuses(client, messaging="down")
        assert report["components"]["messaging"]["reason"] == "it refuses our GRPC_TOKEN"


async def test_a_busy_messaging_is_not_down(around: Around) -> None:
    """How it is costs it nothing to say, also when it takes no other call."""
    told = {"database": FINE, "whatsapp_baileys": TO_PAIR["whatsapp_baileys"]}
    async with (
        messaging(
            around.messaging_port, told, pairing=provider_pb2.Pairing(qr=QR), max_concurrent=0
        ),
        health(**around.addresses()) as client,
    ):
        await statuses(client, messaging="ok", database="ok", whatsapp_baileys="down")
        # Another call: it is refused, and so nothing is there to be scanned.
        page = await client.get("/pairing", headers={"x-api-key": KEY})
        assert "QR code" not in page.text


async def test_requests_cause_no_probes(around: Around) -> None:
    """Two hundred readers at once are answered from memory."""
    async with (
        messaging(around.messaging_port),
        health(**around.addresses(), interval_seconds=60) as client,
    ):
        await statuses(client, webhook="ok", messaging="ok", nats="ok")
        asked = around.edge.asked
        paths = ["/api/health", "/api/health/detailed", "/api/health/readiness", "/", "/metrics"]
        answers = await asyncio.gather(*(client.get(path) for path in paths * 40))
        assert {answer.status_code for answer in answers} == {200}
        assert around.edge.asked == asked


async def test_strangers_learn_only_whether_it_works(around: Around) -> None:
    """Reasons, numbers, the page and metrics need an open network or a key."""
    async with (
        messaging(around.messaging_port),
        health(**around.addresses(), open_networks="10.0.0.0/8") as client,
    ):
        for path in ("/api/health", "/api/health/readiness", "/api/health/liveness"):
            assert (await client.get(path)).status_code in (200, 503)
        assert "details" not in (await client.get("/api/health")).text
        password = base64.b64encode(f"anyone:{KEY}".encode()).decode()
        for path in ("/api/health/detailed", "/", "/metrics"):
            refused = await client.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Basic")
            for good in ({"x-api-key": KEY}, {"authorization": f"Basic {password}"}):
                assert (await client.get(path, headers=good)).status_code == 200
            for bad in (
                {"x-api-key": KEY + "x"},
                {"authorization": "Basic !"},
                {"authorization": f"Bearer {KEY}"},
            ):
                assert (await client.get(path, headers=bad)).status_code == 401
            forwarded = {"x-forwarded-for": "10.1.2.3"}
            assert (await client.get(path, headers=forwarded)).status_code == 200
            # The value is what stands between the white space (RFC 9110, 5.5).
            spaced = Raw(path.encode(), [(b"X-API-Key", f"{KEY} \t".encode())], method=b"GET")
            async with connected(client.base_url.port or 0) as connection:
                assert await connection.ask(spaced.encoded()) == 200


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip"])
@pytest.mark.parametrize("trusted", ["127.0.0.1", "192.0.2.1"])
async def test_who_comes_by_a_proxy_that_is_not_believed_is_a_stranger(
    around: Around, header: str, trusted: str
) -> None:
    """A proxy on this machine that TRUSTED_PROXIES doesn't name makes nobody an insider, nor does
    one that doesn't say who sent a request in the one header that is believed.
    """
    believed = (header, trusted) == ("x-forwarded-for", "127.0.0.1")
    sender = {header: "127.0.0.1" if header != "forwarded" else "for=127.0.0.1"}
    async with health(**around.addresses(), trusted_proxies=trusted) as client:
        for path in ("/api/health/detailed", "/", "/metrics"):
            assert (await client.get(path)).status_code == 200
            answer = await client.get(path, headers=sender)
            assert answer.status_code == (200 if believed else 401)
            assert believed or "TRUSTED_PROXIES" in answer.text
            assert (await client.get(path, headers=sender | {"x-api-key": KEY})).status_code == 200
        assert (await client.get("/api/health", headers=sender)).status_code == 200


QR = "https://wa.me/settings/linked_devices#a-secret-that-pairs"
TO_PAIR = {
    "database": FINE,
    "whatsapp_baileys": ComponentReport(
        "down", "a phone has to be paired", {"state": "unavailable", "needs_pairing": True}
    ),
}


async def test_only_who_shows_a_key_can_pair_a_phone(around: Around) -> None:
    """Being in an open network is not enough: whoever sees the code can take the session over."""
    drawn = segno.make(QR, micro=False).svg_inline(omitsize=True).partition(' d="')[2][:500]
    async with (
        messaging(around.messaging_port, TO_PAIR, pairing=provider_pb2.Pairing(qr=QR)),
        health(**around.addresses()) as client,
    ):
        page = await until(client, "/", lambda r: "has to be paired" in r.text)
        assert 'href="/pairing"' in page.text
        assert "QR code" not in page.text
        refused = await client.get("/pairing")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic")
        key = httpx.BasicAuth("anyone", KEY)
        shown = await client.get("/pairing", auth=key)
        assert drawn in shown.text
        # Nothing of it is anywhere else, and no code is text.
        assert drawn not in (await client.get("/", auth=key)).text
        report = await client.get("/api/health/detailed", auth=key)
        assert QR not in report.text + shown.text + (await client.get("/metrics")).text


async def test_no_answer_may_be_kept_or_sniffed(around: Around) -> None:
    """Every answer, errors included, has the headers that keep it where it belongs."""
    async with health(**around.addresses()) as client:
        for path in ("/api/health", "/api/health/readiness", "/", "/metrics", "/nothing"):
            headers = (await client.get(path)).headers
            assert headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in headers["content-security-policy"]


async def test_head_is_get_without_a_body(around: Around) -> None:
    """Uptime monitors and load balancers ask by HEAD, and are let in no further than by GET."""
    async with health(**around.addresses(), open_networks="10.0.0.0/8") as client:
        for path in ("", "/readiness", "/liveness", "/detailed"):
            path = f"/api/health{path}"
            got, head = await client.get(path), await client.head(path)
            assert (head.status_code, head.content) == (got.status_code, b"")
            assert head.headers["content-type"] == got.headers["content-type"]
        for path in ("/", "/metrics", "/pairing", "/api/health/detailed"):
            assert (await client.head(path)).status_code == 401
            shown = await client.head(path, headers={"x-api-key": KEY})
            assert (shown.status_code, shown.content) == (200, b"")
            assert shown.headers["cache-control"] == "no-store"


async def test_components_are_metrics(around: Around) -> None:
    """Prometheus learns the status of every component, and how long probes take."""
    async with messaging(around.messaging_port), health(**around.addresses()) as client:
        await until(
            client,
            "/metrics",
            lambda r: 'component_status{component="database",status="ok"} 1.0' in r.text,
        )
        text = (await client.get("/metrics")).text
        assert 'switchboard_component_status{component="database",status="down"} 0.0' in text
        assert 'switchboard_probe_seconds_count{component="nats"}' in text


async def test_what_services_were_told_is_joined_without_values(around: Around) -> None:
    """One list of variables, with who reads each."""
    told = {
        "database": FINE,
        "configuration": ComponentReport(
            "ok",
            details={"variables": [{"name": "NATS_URL", "group": "core", "set": True}]},
        ),
    }
    async with messaging(around.messaging_port, told), health(**around.addresses()) as client:
        report = await statuses(client, database="ok", webhook="ok")
        variables = report["components"]["configuration"]["details"]["variables"]
        assert variables["NATS_URL"]["read_by"] == ["messaging", "health"]
        assert variables["PUBLIC_HOST"] == {"group": "core", "set": True, "read_by": ["webhook"]}
        assert variables["LOG_LEVEL"]["set"] is False
        assert KEY not in str(report)
        assert around.nats.url not in str(report)


async def test_the_service_starts_and_stops_as_a_process(tmp_path: Path) -> None:
    """`python -m services.health` serves until SIGTERM and then exits with 0."""
    port = free_port()
    environ = {
        **os.environ,
        "HEALTH_PORT": str(port),
        "WEBHOOK_INTERNAL_URL": f"http://127.0.0.1:{free_port()}",
        "MESSAGING_GRPC_ADDRESS": f"127.0.0.1:{free_port()}",
        "GRPC_TOKEN": "token",
        "NATS_URL": f"nats://127.0.0.1:{free_port()}",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.health", env=environ, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(httpx.ConnectError):
                        if (await client.get("/api/health/liveness")).status_code == 200:
                            break
                    await asyncio.sleep(0.05)
            assert (await client.get("/api/health/readiness")).status_code == 503
        process.terminate()
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_component_that_is_gone_is_no_metric_any_more(around: Around) -> None:
    """A provider that was down and isn't configured any more would ring for ever."""
    told = {"database": FINE, "whatsapp_baileys": ComponentReport("down", "its session is gone")}
    async with messaging(around.messaging_port, told), health(**around.addresses()) as client:
        shown = 'component_status{component="whatsapp_baileys",status="down"} 1.0'
        await until(client, "/metrics", lambda r: shown in r.text)
        del told["whatsapp_baileys"]
        left = await until(client, "/metrics", lambda r: "whatsapp_baileys" not in r.text)
        assert 'component_status{component="database",status="ok"} 1.0' in left.text

"""The status page, made by a running health service."""

from services.common.monitor import ComponentReport
from tests.support.health import FINE, Around, health, messaging, statuses, until

TOLD = {
    "database": FINE,
    "whatsapp_twilio": FINE,
    "configuration": ComponentReport(
        "ok", details={"variables": [{"name": "GRPC_TOKEN", "group": "core", "set": True}]}
    ),
    "activity": ComponentReport(
        "ok",
        details={
            "periods": [{"seconds": 300, "messages_in": 7, "messages_out": 5, "calls": 3}],
            "hours": [],
            "webhook_gaps": 2,
            "webhook_gaps_looked_at": "2026-11-23T10:00:00+00:00",
        },
    ),
}


async def test_the_page_shows_the_report_and_nothing_is_markup(around: Around) -> None:
    """Each component stands there with its state and words; what components say is escaped."""
    told = {
        "database": FINE,
        "whatsapp_baileys": ComponentReport(
            "down",
            "<script>alert(1)</script>",
            {"state": "unavailable", "needs_pairing": True, "breaker": "closed"},
        ),
    }
    async with messaging(around.messaging_port, told), health(**around.addresses()) as client:
        await statuses(client, whatsapp_baileys="down", nats="ok", webhook="ok")
        page = await client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["x-content-type-options"] == "nosniff"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "<script>alert" not in page.text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
        for text in ("Webhook edge", "NATS JetStream", "WhatsApp Web (Baileys)", "Needs pairing"):
            assert text in page.text
        assert "http:" not in page.text
        assert "https:" not in page.text


async def test_what_the_edge_knows_is_shown_without_messaging(around: Around) -> None:
    """What waits on the edge's disk matters most when nobody takes it from there."""
    around.edge.says |= {"spill_events": 1234}
    async with health(**around.addresses()) as client:
        async with messaging(around.messaging_port, TOLD):
            seen = await until(client, "/", lambda r: "5 minutes" in r.text and "1,234" in r.text)
            assert "Webhook gaps made up for</dt><dd>2<" in seen.text
        page = await until(client, "/", lambda r: "5 minutes" not in r.text)
        assert "Not known: messaging can&#39;t be asked." in page.text
        assert "Events on the edge&#39;s disk</dt><dd>1,234<" in page.text
        assert "Webhook gaps made up for</dt><dd>—<" in page.text
        assert "Messaging: it can&#39;t be reached" in page.text
        assert "essaging: messaging can&#39;t be asked" not in page.text


async def test_gaps_are_counted_where_there_is_a_list_to_compare(around: Around) -> None:
    """WhatsApp Web has none, so nobody waits for a first comparison."""
    told = {"database": FINE, "whatsapp_baileys": FINE, "activity": TOLD["activity"]}
    async with messaging(around.messaging_port, told), health(**around.addresses()) as client:
        await statuses(client, whatsapp_baileys="ok", activity="ok")
        assert "Webhook gaps" not in (await client.get("/")).text

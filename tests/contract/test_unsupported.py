"""What no provider sends is refused, in words, and never dropped or sent as something else."""

import pytest

from tests.support.api import PretendMessaging, running_api, served


@pytest.mark.parametrize(
    "feature", ["location", "contacts", "reaction", "edit", "delete", "sticker", "typing", "poll"]
)
async def test_what_nobody_sends(feature: str) -> None:
    """A request for it names no field of the API: nothing is stored."""
    messaging = PretendMessaging()
    async with served(messaging) as address, running_api(address) as api:
        wanted = {"to": "+972501234567", "body": "Hello", feature: {"of": "x"}}
        response = await api.http.post("/api/whatsapp/send", json=wanted)
    assert response.status_code in (400, 422)
    assert f"{feature}: is not a field of this request" in response.json()["detail"]
    assert messaging.requests == []

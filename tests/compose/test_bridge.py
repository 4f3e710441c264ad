"""WhatsApp Web in containers: the bridge's image, its queue, and a pretend WhatsApp."""

import pytest

from tests.support.compose import ComposeStack

PROFILES = ("sandbox", "sandbox-baileys")
VARIABLES = {"WHATSAPP_PROVIDER": "baileys"}
pytestmark = pytest.mark.timeout(900)


def test_a_message_goes_through_the_queue(stack: ComposeStack) -> None:
    """The same conversation as with Twilio, by the unchanged bridge, paired by itself."""
    said = stack.run_in("sandbox", "switchboard", "say", "Is the flat in Haifa still free?")
    assert "WhatsApp has it for the bridge" in said
    assert said.rstrip().endswith("read")


@pytest.mark.parametrize("how", ["restart", "kill"])
@pytest.mark.parametrize("service", ["baileys-sandbox", "messaging"])
def test_either_side_may_go(stack: ComposeStack, service: str, how: str) -> None:
    """After either side of the queue went and came back, the conversation goes on."""
    stack.compose(how, service)
    stack.compose("up", "--detach")
    stack.wait_until_healthy()
    said = stack.run_in("sandbox", "switchboard", "say", f"After {service} had a {how}")
    assert said.rstrip().endswith("read")

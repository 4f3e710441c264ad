"""Which events of the journal a replay may store together."""

from collections.abc import Iterable, Iterator, Sequence

from nats.aio.msg import Msg

from services.messaging.domain.contact import InboundMessage, SamePerson
from services.messaging.domain.message import StatusReport
from services.messaging.ports.acts import Act, Read
from services.messaging.usecases.calls.take_in import VoiceEvent

Webhook = InboundMessage | StatusReport | SamePerson
Content = Webhook | VoiceEvent | Act


def in_groups(
    events: Iterable[tuple[Msg, Content]],
) -> Iterator[Sequence[tuple[Msg, Content]]]:
    """Events that may be stored together: first messages, then acts, then reports.

    A mark of what was read covers only what came before it, and a contact may reply to a message of
    ours.
    """
    group: list[tuple[Msg, Content]] = []
    acted = marked = False
    for event in events:
        content = event[1]
        is_mark = isinstance(content, Read)
        is_reply = isinstance(content, InboundMessage) and content.reply_to is not None
        if (marked and not is_mark) or (acted and is_reply):
            yield group
            group, acted = [], False
        marked = is_mark
        acted = acted or not isinstance(content, Webhook | VoiceEvent)
        group.append(event)
    if group:
        yield group

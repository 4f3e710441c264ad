"""Steps of the edge that aren't coroutines: whoever waits there is told, see `dying`."""

from collections.abc import Callable

from services.common.http_direct import WholeRequest
from services.common.journal.events import JournalEvent
from services.common.journal.publisher import JournalPublisher, Settled
from services.common.journal.putting import JournalUnavailableError
from tests.chaos.dying import reached, wrap


def around_publishing(
    before: Callable[[JournalEvent], str], after: Callable[[JournalEvent], str]
) -> None:
    """Steps before an event is handed to the journal, and once it is there."""
    publish_soon = JournalPublisher.publish_soon

    def publishing(publisher: JournalPublisher, event: JournalEvent, settled: Settled) -> None:
        def settling(error: JournalUnavailableError | None) -> None:
            if error is None:
                reached(after(event))
            settled(error)

        reached(before(event))
        publish_soon(publisher, event, settling)

    wrap(JournalPublisher, "publish_soon", publishing)


def after_answer(step: Callable[[str], str]) -> None:
    """A step after a request was answered directly, by its path."""
    answer = WholeRequest.answer

    def answering(request: WholeRequest, head: bytes, body: bytes) -> None:
        answer(request, head, body)
        reached(step(request.scope["path"]))

    wrap(WholeRequest, "answer", answering)

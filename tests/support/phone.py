"""An application of TwiML, written by hand, for the sandbox's telephone."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

import uvicorn
from starlette.datastructures import Headers, MultiDict
from starlette.types import Receive, Scope, Send

from sandbox.phone.call import Entry, PhoneCall
from sandbox.phone.scenario import Scenario, Turn
from sandbox.server import RunningSandbox, running_sandbox
from tests.support.sandbox import Webhook, sandbox_settings

FAST = 1000.0
INCOMING = "/webhook/incoming_call"
STATUS = "/webhook/call_status"


@dataclass(frozen=True)
class Answer:
    """What an address answers."""

    body: bytes | str = ""
    status: int = 200
    content_type: str | None = "text/xml"
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0
    """Seconds."""


@dataclass
class TwimlApp:
    """Answers webhooks and serves audio as told; an address that nobody set is empty TwiML."""

    base_url: str
    answers: dict[str, Answer | Callable[[Webhook], Answer]] = field(default_factory=dict)
    received: list[Webhook] = field(default_factory=list)

    def on(self, path: str, *verbs: str) -> None:
        """Answer with these verbs at `path`."""
        self.answers[path] = Answer(f"<Response>{''.join(verbs)}</Response>")

    def paths(self) -> list[str]:
        """What was asked, in order."""
        return [webhook.path for webhook in self.received]

    def asked(self, path: str) -> list[Webhook]:
        """The requests for an address."""
        return [webhook for webhook in self.received if webhook.path == path]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request."""
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        webhook = Webhook(
            path=scope["raw_path"].decode(),
            query=scope["query_string"].decode(),
            headers=Headers(scope=scope),
            form=MultiDict(parse_qsl(body.decode(), keep_blank_values=True)),
        )
        self.received.append(webhook)
        found = self.answers.get(webhook.path, Answer("<Response/>"))
        answer = found if isinstance(found, Answer) else found(webhook)
        await asyncio.sleep(answer.after)
        content = answer.body.encode() if isinstance(answer.body, str) else answer.body
        headers = {"content-length": str(len(content)), **answer.headers}
        if answer.content_type:
            headers["content-type"] = answer.content_type
        pairs = [(name.encode(), value.encode()) for name, value in headers.items() if value]
        await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
        await send({"type": "http.response.body", "body": content})


@dataclass(frozen=True)
class Telephone:
    """The sandbox, and the application that its calls come to."""

    sandbox: RunningSandbox
    app: TwimlApp

    async def call(self, *turns: str | Turn, speed: float = FAST, **scenario: object) -> PhoneCall:
        """A whole call; a text is spoken, and "" is silence."""
        said = [Turn(text=turn) if isinstance(turn, str) else turn for turn in turns]
        made = Scenario.model_validate({"turns": said, "speed": speed, **scenario})
        call = self.sandbox.call(made)
        await self.sandbox.settled()
        return call


def entries(call: PhoneCall, *kinds: str) -> list[Entry]:
    """What happened of these kinds."""
    return [entry for entry in call.timeline if entry.kind in kinds]


@asynccontextmanager
async def telephone(**changes: object) -> AsyncIterator[Telephone]:
    """A sandbox whose webhooks go to a TwimlApp."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = TwimlApp(f"http://127.0.0.1:{listener.getsockname()[1]}")
        server = _Server(
            uvicorn.Config(
                app, lifespan="off", log_config=None, access_log=False, date_header=False
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            settings = {
                "recording_after": 0,
                "recording_callback_after": 0,
                "webhook_url": app.base_url,
                **changes,
            }
            async with running_sandbox(sandbox_settings(**settings)) as sandbox:
                yield Telephone(sandbox, app)
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to pytest."""
        yield

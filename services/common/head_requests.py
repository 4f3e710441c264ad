"""HEAD, answered as GET is."""

from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_BY_HEAD = "switchboard.by_head"


def answering_head(app: ASGIApp, *, but: Collection[str] = ()) -> ASGIApp:
    """`app`, which answers HEAD as it does GET; the server leaves the body out.

    Not by routes of its own: they would stand in the OpenAPI document twice.

    Args:
        but: Paths that take GET alone, as a stream's does: it is never whole.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in but:
            await app(scope, receive, send)
            return

        async def allowing_head(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 405:
                allowed = [
                    (name, value + b", HEAD" if name == b"allow" and b"GET" in value else value)
                    for name, value in message["headers"]
                ]
                message = {**message, "headers": allowed}
            await send(message)

        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", _BY_HEAD: True}
        await app(scope, receive, allowing_head)

    return answer


def is_head(scope: Scope) -> bool:
    """Whether nobody reads the answer's body, which may be long in the making."""
    return _BY_HEAD in scope

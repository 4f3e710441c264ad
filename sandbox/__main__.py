"""`python -m sandbox`: a pretend Twilio and OpenAI on this machine."""

import asyncio
import contextlib
import gc
import logging
import sys

from pydantic import ValidationError

from sandbox.server import bound_socket, serve
from sandbox.settings import SandboxSettings

logger = logging.getLogger("sandbox")


def main() -> None:
    """Serve until interrupted; exits with a sentence when it can't start."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    # httpx logs every address it asks for, uvicorn each step of its start.
    for chatty in ("httpx", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        settings = SandboxSettings()
    except ValidationError as error:
        lines = [f"  {_name(problem['loc'])}: {problem['msg']}" for problem in error.errors()]
        sys.exit(
            "\n".join(
                ["sandbox: cannot start:", *lines, "sandbox/sandbox.env has values that work."]
            )
        )
    try:
        listener = bound_socket(settings)
    except OSError as error:
        sys.exit(
            f"sandbox: cannot listen on {settings.host}:{settings.port} ({error.strerror}); "
            "choose another port with SWITCHBOARD_SANDBOX_PORT."
        )
    # What it is sent stays for good. To look through all of it took half a second at 10,000
    # messages, and whoever measured an answer's time measured that.
    gc.set_threshold(700, 10, 1_000)
    logger.info("listening on %s:%s", settings.host, settings.port)
    # uvicorn stops in order, then passes Ctrl-C on.
    with listener, contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(settings, listener))


def _name(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


if __name__ == "__main__":
    main()

"""OpenAI's refusals, and who is let in."""

import secrets
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse


class OpenAIError(Exception):
    """A refusal in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        self.headers = headers

    def response(self) -> JSONResponse:
        """The answer as OpenAI gives it."""
        return JSONResponse(self.body, status_code=self.status, headers=self.headers)


def invalid(message: str, param: str | None = None) -> OpenAIError:
    """A request that can't be understood."""
    return OpenAIError(400, "invalid_request_error", message, param=param)


def rate_limited(retry_after: int | None) -> OpenAIError:
    """Too many requests; the seconds go into Retry-After."""
    headers = None if retry_after is None else {"Retry-After": str(retry_after)}
    message = "Rate limit reached for requests."
    return OpenAIError(429, "requests", message, "rate_limit_exceeded", headers=headers)


def server_error() -> OpenAIError:
    """Nobody's fault but theirs."""
    return OpenAIError(500, "server_error", "The server had an error. Please try again.")


def authorize(request: Request, key: str) -> None:
    """Let only those in who show the key.

    Raises:
        OpenAIError: It is missing or wrong.
    """
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    valid = secrets.compare_digest(given.strip().encode(), key.encode())
    if scheme.lower() != "bearer" or not valid:
        raise OpenAIError(
            401, "invalid_request_error", "Incorrect API key provided.", "invalid_api_key"
        )


async def json_object(request: Request) -> dict[str, Any]:
    """The body, which must be a JSON object.

    Raises:
        OpenAIError: It is something else.
    """
    try:
        body = await request.json()
    except ValueError as error:
        raise invalid("We could not parse the JSON body of your request.") from error
    if not isinstance(body, dict):
        raise invalid("The body must be a JSON object.")
    return body

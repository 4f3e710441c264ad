"""Reading files of the queue: bytes, JSON, and a document of a known shape."""

import json
import math
from enum import StrEnum
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MAX_BYTES: Final = 262_144
_MAX_DEPTH: Final = 50

Model = TypeVar("Model", bound=BaseModel)


class Problem(StrEnum):
    """Why a file can't be read."""

    FOREIGN = "foreign"
    NOT_A_FILE = "not_a_file"
    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    VERSION = "version"
    KIND = "kind"
    FIELD = "field"


class BadDocumentError(ValueError):
    """A file of the queue can't be read; the text names fields and never their values.

    Attributes:
        field: The field at fault, with dots, when the problem is one.
    """

    def __init__(self, problem: Problem, explanation: str, field: str = "") -> None:
        super().__init__(f"{problem}: {explanation}")
        self.problem = problem
        self.field = field


def plain_json(content: str) -> dict[str, Any]:
    """A document that was read once, without what PostgreSQL can't store."""
    document = _clean(json.loads(content))
    if not isinstance(document, dict):
        raise TypeError("not an object")
    return document


def read_object(content: bytes) -> dict[str, Any]:
    """The JSON object in a file, of the version that we know.

    Raises:
        BadDocumentError: There is none.
    """
    if len(content) > MAX_BYTES:
        raise BadDocumentError(Problem.TOO_LARGE, f"has more than {MAX_BYTES} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise BadDocumentError(Problem.NOT_UTF8, f"at byte {error.start}") from None
    try:
        document = _clean(json.loads(text, parse_constant=_no_constant, parse_float=_finite_number))
    except (ValueError, RecursionError):
        raise BadDocumentError(Problem.NOT_JSON, "is no whole JSON document") from None
    if not isinstance(document, dict):
        raise BadDocumentError(Problem.NOT_AN_OBJECT, "is JSON, but no object")
    version = document.get("v")
    if version != 1 or isinstance(version, bool):
        raise BadDocumentError(Problem.VERSION, "v is not 1")
    found: dict[str, Any] = document
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite_number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        # PostgreSQL could not store what Python would write for it.
        raise ValueError("the number is too large")
    return number


def _clean(value: Any, depth: int = 0) -> Any:
    """Without NUL and halves of surrogate pairs.

    Raises:
        ValueError: It is nested deeper than any document of ours.
    """
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_clean(one, depth + 1) for one in value]
    if isinstance(value, dict):
        return {_clean(name): _clean(one, depth + 1) for name, one in value.items()}
    return value


def validated(model: type[Model], document: dict[str, Any]) -> Model:
    """A document of a shape.

    Raises:
        BadDocumentError: A field is missing or wrong.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = _field(first)
        raise BadDocumentError(Problem.FIELD, f"{field} {_words(first)}", field) from None


def _field(error: ErrorDetails) -> str:
    path = [str(part) for part in error["loc"]]
    if path[0] == "content" and len(path) > 1:
        del path[1]  # pydantic names the chosen kind of content, too.
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path.append("type")
    return ".".join(path)


def _words(error: ErrorDetails) -> str:
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "value_error":
        return error["msg"].removeprefix("Value error, ")
    return "is malformed"

"""The documents of the file queue, by the cases that the bridge's tests run, too."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from services.messaging.providers.baileys import documents, state
from services.messaging.providers.baileys.parsing import BadDocumentError

CASES = Path(__file__).parents[1] / "conformance" / "baileys-queue"
DOCUMENTS = json.loads((CASES / "documents.json").read_text())["cases"]


def content(case: dict[str, Any]) -> bytes:
    if "base64" in case:
        return base64.b64decode(case["base64"])
    if "text" in case:
        repeat: int = case.get("repeat", 1)
        return str(case["text"]).encode() * repeat
    return json.dumps(case["document"]).encode()


def parse(case: dict[str, Any]) -> object:
    match case["folder"]:
        case "outbox/new":
            return documents.parse_document(content(case), documents.OUTBOX)
        case "outbox/done":
            return documents.parse_document(content(case), documents.DONE)
        case "inbox/new":
            return documents.parse_document(content(case), documents.INBOX)
    return state.parse_state(content(case))


@pytest.mark.parametrize("case", DOCUMENTS, ids=lambda case: case["name"])
def test_document(case: dict[str, Any]) -> None:
    """Every shared case is read, or refused for the reason that it names."""
    if case["problem"] is None:
        parse(case)
        return
    with pytest.raises(BadDocumentError) as refused:
        parse(case)
    assert (refused.value.problem, refused.value.field) == (case["problem"], case.get("field", ""))


@pytest.mark.parametrize(
    "case", [one for one in DOCUMENTS if one["problem"] is None], ids=lambda case: case["name"]
)
def test_written_document_is_read_again(case: dict[str, Any]) -> None:
    """What is written is read as the same document."""
    read: Any = parse(case)
    again = {**case, "text": documents.document_bytes(read).decode()}
    assert parse(again) == read

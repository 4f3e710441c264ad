"""The examples of the OpenAPI document."""

import json

import pytest
from pydantic import BaseModel

from services.webhook.api import models
from services.webhook.api.examples import ANSWERS, NEW_MESSAGES, READ_MARKS, STREAM_EVENT
from services.webhook.api.requests import NewMessage, ReadMark

SHAPES: dict[str, type[BaseModel]] = {
    "list_calls": models.CallPage,
    "get_call": models.CallWithTurns,
    "get_status": models.Status,
    "send_message": models.Message,
    "list_messages": models.MessagePage,
    "get_message": models.MessageWithHistory,
    "list_conversations": models.ConversationPage,
    "get_conversation": models.ConversationWithMessages,
    "mark_conversation_read": models.Conversation,
    "pause_assistant": models.Conversation,
    "resume_assistant": models.Conversation,
}


@pytest.mark.parametrize("operation", ANSWERS)
def test_answers_are_shown_as_they_are(operation: str) -> None:
    """An example is what would really be answered, letter by letter."""
    example = ANSWERS[operation]
    assert json.loads(SHAPES[operation](**example).model_dump_json()) == example


def test_the_streams_example_is_an_event() -> None:
    """As for the answers."""
    assert json.loads(models.StreamEvent(**STREAM_EVENT).model_dump_json()) == STREAM_EVENT


def test_requests_that_are_shown_are_good() -> None:
    """Who copies an example gets no error."""
    for example in NEW_MESSAGES.values():
        NewMessage.model_validate(example["value"])
    for example in READ_MARKS.values():
        ReadMark.model_validate(example["value"])

"""The examples of the OpenAPI document; a test sees that they fit it."""

from typing import Any

from fastapi.openapi.models import Example

_CONTACT_ADDRESS = "whatsapp:+972501234567"
_OWN_ADDRESS = "whatsapp:+14155238886"
_MESSAGE_ID = "04aea4ac627b47b0be05c2e53de54d67"
_CONVERSATION_ID = "7b1f0a2c5b1d4f6e9a3c8d2e1f405162"


def _received(time: str) -> dict[str, str]:
    return {"time": time, "source": "received"}


_MESSAGE: dict[str, Any] = {
    "id": _MESSAGE_ID,
    "conversation_id": _CONVERSATION_ID,
    "direction": "outbound",
    "status": "queued",
    "contact_address": _CONTACT_ADDRESS,
    "own_address": _OWN_ADDRESS,
    "body": "See you at nine.",
    "media": [],
    "template": None,
    "author": "program",
    "provider": "twilio",
    "provider_message_id": None,
    "reply_to": None,
    "answers": None,
    "error": None,
    "created_at": "2026-05-01T09:30:00.123456Z",
    "sent_at": None,
    "delivered_at": None,
    "read_at": None,
    "failed_at": None,
}
_SENT: dict[str, Any] = {
    **_MESSAGE,
    "status": "sent",
    "provider_message_id": "SM0123456789abcdef0123456789abcdef",
    "sent_at": _received("2026-05-01T09:30:00.712345Z"),
}
_EVENT: dict[str, Any] = {
    "cursor": "AAAAAAAAAGQ",
    "message_id": _MESSAGE_ID,
    "kind": "queued",
    "status": "queued",
    "occurred_at": _received("2026-05-01T09:30:00.123456Z"),
    "provider": None,
    "outcome": None,
    "error": None,
    "origin": None,
    "text": None,
}
_SENT_EVENT: dict[str, Any] = {
    **_EVENT,
    "cursor": "AAAAAAAAAGc",
    "kind": "status",
    "status": "sent",
    "occurred_at": _received("2026-05-01T09:30:00.712345Z"),
    "provider": "twilio",
}
_MESSAGE_WITH_HISTORY: dict[str, Any] = {**_SENT, "events": [_EVENT, _SENT_EVENT]}
_MESSAGE_PAGE: dict[str, Any] = {"messages": [_SENT], "next_cursor": None}
_CONVERSATION: dict[str, Any] = {
    "id": _CONVERSATION_ID,
    "contact": {
        "id": "c0ffee00c0ffee00c0ffee00c0ffee00",
        "display_name": "Dana",
        "identities": [{"kind": "phone", "value": "+972501234567"}],
        "opted_out_at": None,
    },
    "contact_address": _CONTACT_ADDRESS,
    "own_address": _OWN_ADDRESS,
    "created_at": "2026-04-30T18:02:11.000001Z",
    "last_message_at": "2026-05-01T09:30:00.123456Z",
    "window_closes_at": "2026-05-02T08:12:45.000001Z",
    "unread_count": 0,
    "assistant_paused_at": None,
    "assistant_paused_by": None,
    "last_message": _SENT,
}
_PAUSED: dict[str, Any] = {
    **_CONVERSATION,
    "assistant_paused_at": "2026-05-01T09:31:00.000001Z",
    "assistant_paused_by": "api",
}
_CONVERSATION_PAGE: dict[str, Any] = {"conversations": [_CONVERSATION], "next_cursor": None}
_CONVERSATION_WITH_MESSAGES: dict[str, Any] = {
    "conversation": _CONVERSATION,
    "messages": [_SENT],
    "next_cursor": None,
}
_STATUS: dict[str, Any] = {
    "provider": {
        "name": "twilio",
        "state": "healthy",
        "reason": None,
        "last_success_at": "2026-05-01T09:30:00.712345Z",
        "last_failure_at": None,
        "last_error": None,
        "retry_at": None,
        "pairing": None,
    },
    "fallback": None,
    "queues": {
        "due": 0,
        "sending": 0,
        "unknown": 0,
        "replies": 0,
        "parked": 0,
        "oldest_unsettled_at": None,
    },
}
_CALL: dict[str, Any] = {
    "id": "CA0123456789abcdef0123456789abcdef",
    "provider": "twilio",
    "status": "completed",
    "outcome": "answered",
    "caller": "+972501234567",
    "called": "+14155238886",
    "language": "en-US",
    "started_at": "2026-05-01T09:30:00.123456Z",
    "answered_at": "2026-05-01T09:30:01Z",
    "ended_at": "2026-05-01T09:30:42Z",
    "seconds": 41.0,
}
_CALL_WITH_TURNS: dict[str, Any] = {
    **_CALL,
    "turns": [
        {
            "number": 1,
            "state": "done",
            "voicemail": False,
            "transcript": "Is the flat in Haifa still free?",
            "answer": [
                {
                    "text": "Yes, the flat in Haifa is still free.",
                    "audio_url": f"/audio/{'0123456789abcdef' * 4}.mp3",
                    "played": True,
                }
            ],
            "digits": None,
            "recording_id": "RE0123456789abcdef0123456789abcdef",
            "recording_seconds": 3.0,
            "heard_at": "2026-05-01T09:30:12.345678Z",
            "timings": {
                "fetch": 0.12,
                "transcribe": 0.45,
                "first_sentence": 0.38,
                "first_audio": 0.21,
                "gap": 1.19,
            },
            "problem": None,
        }
    ],
}
_CALL_PAGE: dict[str, Any] = {"calls": [_CALL], "next_cursor": None}
STREAM_EVENT: dict[str, Any] = {"event": _SENT_EVENT, "message": _SENT}

NEW_MESSAGES: dict[str, Example] = {
    "text": {"value": {"to": "+972501234567", "body": "See you at nine."}},
    "file": {
        "value": {
            "to": "+972501234567",
            "media_url": "https://switchboard.example.com/plan.pdf",
            "body": "The plan.",
        }
    },
    "template": {
        "value": {
            "to": "+972501234567",
            "template": {
                "id": "HX0123456789abcdef0123456789abcdef",
                "variables": {"1": "Dana", "2": "9:00"},
            },
        }
    },
}
READ_MARKS: dict[str, Example] = {
    "all": {"value": {}},
    "up to a message": {"value": {"up_to": _MESSAGE_ID}},
}

ANSWERS: dict[str, dict[str, Any]] = {
    "list_calls": _CALL_PAGE,
    "get_call": _CALL_WITH_TURNS,
    "get_status": _STATUS,
    "send_message": _MESSAGE,
    "list_messages": _MESSAGE_PAGE,
    "get_message": _MESSAGE_WITH_HISTORY,
    "list_conversations": _CONVERSATION_PAGE,
    "get_conversation": _CONVERSATION_WITH_MESSAGES,
    "mark_conversation_read": _CONVERSATION,
    "pause_assistant": _PAUSED,
    "resume_assistant": _CONVERSATION,
}
"""What each operation answers with JSON, by its id."""

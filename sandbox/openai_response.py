"""The Responses API's answer, whole and as a stream of events."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

Json = dict[str, Any]


class ResponseAnswer:
    """One answer of the model in the shape of OpenAI's Responses API."""

    def __init__(self, request: Json, text: str, created_at: int, tool: str | None = None) -> None:
        self._request = request
        self._text = text
        self._created_at = created_at
        self._id = f"resp_{uuid4().hex}"
        self._item_id = f"msg_{uuid4().hex}"
        self._tool = tool
        self._tool_id = f"fc_{uuid4().hex}"
        self._tool_call_id = f"call_{uuid4().hex}"

    def whole(self) -> Json:
        """The completed response."""
        output = [self._item("completed", [self._part(self._text)])]
        if self._tool:
            output.append(self._tool_call("completed", "{}"))
        return self._response("completed", output)

    def events(self) -> Iterator[Json]:
        """The events of a streamed response, in order and numbered."""
        for number, event in enumerate(self._events()):
            yield {**event, "sequence_number": number}

    def _events(self) -> Iterator[Json]:
        item = {"output_index": 0}
        part = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        started = self._response("in_progress", [])
        yield {"type": "response.created", "response": started}
        yield {"type": "response.in_progress", "response": started}
        yield {
            "type": "response.output_item.added",
            **item,
            "item": self._item("in_progress", []),
        }
        yield {"type": "response.content_part.added", **part, "part": self._part("")}
        for delta in re.findall(r"\s*\S+\s*$|\s*\S+", self._text):
            yield {"type": "response.output_text.delta", **part, "delta": delta, "logprobs": []}
        yield {"type": "response.output_text.done", **part, "text": self._text, "logprobs": []}
        yield {"type": "response.content_part.done", **part, "part": self._part(self._text)}
        yield {
            "type": "response.output_item.done",
            **item,
            "item": self._item("completed", [self._part(self._text)]),
        }
        if self._tool:
            yield from self._tool_events()
        yield {"type": "response.completed", "response": self.whole()}

    def _tool_events(self) -> Iterator[Json]:
        item = {"output_index": 1}
        arguments = {"item_id": self._tool_id, "output_index": 1}
        begun, done = self._tool_call("in_progress", ""), self._tool_call("completed", "{}")
        yield {"type": "response.output_item.added", **item, "item": begun}
        yield {"type": "response.function_call_arguments.delta", **arguments, "delta": "{}"}
        yield {
            "type": "response.function_call_arguments.done",
            **arguments,
            "name": self._tool,
            "arguments": "{}",
        }
        yield {"type": "response.output_item.done", **item, "item": done}

    def _response(self, status: str, output: list[Json]) -> Json:
        asked = self._request
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created_at,
            "completed_at": self._created_at if status == "completed" else None,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.get("instructions"),
            "max_output_tokens": asked.get("max_output_tokens"),
            "metadata": asked.get("metadata") or {},
            "model": asked["model"],
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": asked.get("previous_response_id"),
            "store": asked.get("store", True),
            "temperature": asked.get("temperature", 1.0),
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": asked.get("tools") or [],
            "top_p": asked.get("top_p", 1.0),
            "truncation": "disabled",
            "usage": self._usage() if status == "completed" else None,
        }

    def _item(self, status: str, content: list[Json]) -> Json:
        return {
            "id": self._item_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _tool_call(self, status: str, arguments: str) -> Json:
        return {
            "id": self._tool_id,
            "type": "function_call",
            "status": status,
            "name": self._tool,
            "call_id": self._tool_call_id,
            "arguments": arguments,
        }

    @staticmethod
    def _part(text: str) -> Json:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _usage(self) -> Json:
        asked, answered = len(str(self._request.get("input")).split()), len(self._text.split())
        return {
            "input_tokens": asked,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": answered,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": asked + answered,
        }

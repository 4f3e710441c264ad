"""What the pretend language model says: always the same to the same question."""

import re
from collections.abc import Collection
from typing import Any

_HEBREW = re.compile(r"[\u0590-\u05ff]")
_QUOTED = 80

END_CALL, TRANSFER = "end_call", "transfer_to_person"
"""Tools that the pretend model knows to call, where it is offered them."""

# The first pattern that fits wins.
_WITH_TOOLS = [
    (
        r"\bperson\b|\bhuman\b|\brepresentative\b|speak (?:to|with) (?:some|any)one",
        TRANSFER,
        "One moment, please. I'm putting you through to a colleague.",
    ),
    (r"\b(?:good)?bye\b|that's all", END_CALL, "Thank you for calling. Goodbye!"),
    (r"נציג|בן אדם|לדבר עם מישהו", TRANSFER, "רגע אחד, בבקשה. אני מעביר אתכם לנציג."),
    (r"להתראות|ביי", END_CALL, "תודה שהתקשרתם. להתראות!"),
]

_ANSWERS = [
    (
        r"\btell me (?:all|more) about\b",
        (
            "{topic} has three rooms and a balcony. The kitchen of {topic} was renovated last "
            "year. There is a lift, and parking in the yard of {topic}. From {topic} the sea is "
            "a short walk away. You could move into {topic} next month."
        ),
    ),
    (
        r"\bprice|\bcost|how much|\brent\b",
        "The rent is 4,200 shekels a month. Would you like to come and see the place?",
    ),
    (
        r"\bopen|\bhours\b|\bclose[sd]?\b",
        "We are open Sunday to Thursday from 9:00 to 18:00, and on Friday until 13:00.",
    ),
    (
        r"\bflat\b|\bapartment|\bfree\b|\bavailable\b",
        "Yes, {place} is still free. Would you like to come and see it this week?",
    ),
    (r"\bthank", "You're welcome! Just write if there is anything else."),
    (r"^\W*(?:hi|hello|hey|good (?:morning|evening))\b", "Hello! How can I help you?"),
    (r"מחיר|כמה|שכירות", "שכר הדירה הוא 4,200 שקלים בחודש. תרצו לבוא לראות?"),
    (r"פתוח|שעות", "אנחנו פתוחים בימים א'-ה' בין 9:00 ל-18:00, ובימי שישי עד 13:00."),
    (r"דירה|פנוי", "כן, הדירה עדיין פנויה. תרצו לבוא לראות אותה השבוע?"),
]


def answer(question: str) -> str:
    """A short friendly answer that depends on the question alone."""
    for pattern, text in _ANSWERS:
        if re.search(pattern, question, re.IGNORECASE):
            return text.format(place=_place(question), topic=_topic(question))
    quoted = " ".join(question.split())[:_QUOTED]
    if _HEBREW.search(question):
        return f"תודה על ההודעה: \u201c{quoted}\u201d. נחזור אליכם בהקדם."
    return f"Thanks for your message: \u201c{quoted}\u201d. A colleague will get back to you soon."


def answer_with_tools(question: str, offered: Collection[str]) -> tuple[str, str | None]:
    """An answer, and the tool that is called after it where one of those offered fits."""
    for pattern, tool, text in _WITH_TOOLS:
        if tool in offered and re.search(pattern, question, re.IGNORECASE):
            return text, tool
    return answer(question), None


def offered_tools(request: dict[str, Any]) -> list[str]:
    """The functions that a request allows to be called."""
    tools = request.get("tools")
    return [
        str(tool.get("name"))
        for tool in (tools if isinstance(tools, list) else [])
        if isinstance(tool, dict) and tool.get("type") == "function"
    ]


def last_user_text(request: dict[str, Any]) -> str | None:
    """The last thing the user said in a request to the Responses API; None if nothing was."""
    given = request.get("input")
    if isinstance(given, str):
        return given or None
    for item in reversed(given if isinstance(given, list) else []):
        if isinstance(item, dict) and item.get("role") == "user":
            return _text(item.get("content")) or None
    return None


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(
        str(part.get("text", ""))
        for part in parts
        if isinstance(part, dict) and part.get("type") == "input_text"
    )


def _topic(question: str) -> str:
    return question.rpartition(" about ")[2].rstrip("?!. ")[:_QUOTED]


def _place(question: str) -> str:
    found = re.search(r"\b(flat|apartment)\b(?: (in|on|at) ([A-Z]\w+))?", question)
    if not found:
        return "it"
    kind, preposition, name = found.groups()
    return f"the {kind} {preposition} {name}" if name else f"the {kind}"

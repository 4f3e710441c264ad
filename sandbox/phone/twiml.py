"""TwiML, read strictly: what Twilio warns of is an error here.

Verbs, attributes and their defaults are those of https://www.twilio.com/docs/voice/twiml; the
codes are from Twilio's error and warning dictionary.
"""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from sandbox.message_form import E164

UNREACHABLE = 11200
TOO_MANY_REDIRECTS = 11215
NOT_XML = 12100
NOT_IN_SCHEMA = 12200
WRONG_CONTENT_TYPE = 12300
INVALID_CALLER_ID = 13214
NOT_AUDIO = 13420
UNSPEAKABLE = 13520

_TEXTS = {
    UNREACHABLE: "HTTP retrieval failure",
    TOO_MANY_REDIRECTS: "HTTP too many redirects",
    NOT_XML: "Document parse failure",
    NOT_IN_SCHEMA: "Schema validation warning",
    WRONG_CONTENT_TYPE: "Invalid Content-Type",
    INVALID_CALLER_ID: "Dial: Invalid callerId value",
    NOT_AUDIO: "Play: Invalid Content-Type",
    UNSPEAKABLE: "Say: Invalid text",
}

_URL = r"\S+"
_METHOD = "GET|POST"
_BOOLEAN = "true|false"
_POSITIVE = r"[1-9]\d{0,8}"
_NATURAL = r"\d{1,9}"
_KEYS = r"[0-9*#]*"
_LANGUAGE = r"[a-z]{2,3}(-[A-Za-z0-9]+)*"
_EVENTS = r"(in-progress|completed|absent)( (in-progress|completed|absent))*"
_ACTION = {"action": _URL, "method": _METHOD}
_RECORDING = {
    "recordingStatusCallback": _URL,
    "recordingStatusCallbackMethod": _METHOD,
    "recordingStatusCallbackEvent": _EVENTS,
}
_ATTRIBUTES: dict[str, dict[str, str]] = {
    "Say": {"voice": r"[\w.-]+", "language": _LANGUAGE, "loop": _NATURAL},
    "Play": {"loop": _NATURAL, "digits": r"[0-9w*#]+"},
    "Pause": {"length": _NATURAL},
    "Record": {
        **_ACTION,
        **_RECORDING,
        "timeout": _POSITIVE,
        "finishOnKey": _KEYS,
        "maxLength": _POSITIVE,
        "playBeep": _BOOLEAN,
        "trim": "trim-silence|do-not-trim",
    },
    "Gather": {
        **_ACTION,
        "input": "dtmf|speech|dtmf speech",
        "timeout": _POSITIVE,
        "finishOnKey": _KEYS,
        "numDigits": _POSITIVE,
        "language": _LANGUAGE,
        "hints": ".*",
        "speechTimeout": rf"auto|{_POSITIVE}",
        "speechModel": r"[\w-]+",
        "actionOnEmptyResult": _BOOLEAN,
    },
    "Dial": {
        **_ACTION,
        "timeout": _POSITIVE,
        "timeLimit": _POSITIVE,
        "callerId": E164,
        "hangupOnStar": _BOOLEAN,
        "answerOnBridge": _BOOLEAN,
    },
    "Number": {},
    "Redirect": {"method": _METHOD},
    "Hangup": {},
    "Reject": {"reason": "rejected|busy"},
}
_INSIDE = {"Gather": ("Say", "Play", "Pause"), "Dial": ("Number",)}
_WITH_TEXT = {"Say", "Play", "Redirect", "Number"}
_MAY_HAVE_TEXT = {*_WITH_TEXT, "Dial"}
_VERBS = set(_ATTRIBUTES) - {"Number"}


class TwimlError(Exception):
    """The caller hears "an application error has occurred", and the call ends."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{_TEXTS[code]}: {detail}")
        self.code = code


@dataclass(frozen=True)
class Verb:
    """An element as it stands in the document, checked against the schema."""

    name: str
    text: str
    attributes: dict[str, str]
    children: tuple["Verb", ...]

    def number(self, name: str, default: int) -> int:
        """An attribute that is a whole number."""
        return int(self.attributes.get(name, default))

    def flag(self, name: str, default: bool) -> bool:
        """An attribute that is true or false."""
        return self.attributes.get(name, str(default).lower()) == "true"


def parse_twiml(document: bytes) -> list[Verb]:
    """The verbs in their order.

    Raises:
        TwimlError: It isn't XML, or not as Twilio has it.
    """
    try:
        root = ET.fromstring(document)  # noqa: S314 - from the application under test.
    except ET.ParseError as error:
        raise TwimlError(NOT_XML, str(error)) from None
    if root.tag != "Response":
        raise TwimlError(NOT_XML, f"the root is <{root.tag}>, not <Response>")
    _refuse_words(root)
    return [_verb(element, _VERBS, "Response") for element in root]


def _verb(element: ET.Element, allowed: set[str], parent: str) -> Verb:
    name = element.tag
    if name not in allowed:
        raise TwimlError(NOT_IN_SCHEMA, f"<{name}> is not allowed in <{parent}>")
    schema = _ATTRIBUTES[name]
    for attribute, value in element.attrib.items():
        if attribute not in schema:
            raise TwimlError(NOT_IN_SCHEMA, f"{attribute} is not allowed in <{name}>")
        if not re.fullmatch(schema[attribute], value, re.ASCII):
            raise TwimlError(NOT_IN_SCHEMA, f"{attribute}={value!r} of <{name}> is malformed")
    text = (element.text or "").strip()
    if name in _WITH_TEXT and not text and "digits" not in element.attrib:
        raise TwimlError(UNSPEAKABLE if name == "Say" else NOT_IN_SCHEMA, f"<{name}> is empty")
    if name not in _MAY_HAVE_TEXT or len(element):
        _refuse_words(element)
    children = tuple(_verb(child, set(_INSIDE.get(name, ())), name) for child in element)
    if name == "Dial" and not text and not children:
        raise TwimlError(NOT_IN_SCHEMA, "<Dial> calls nobody")
    return Verb(name, text, dict(element.attrib), children)


def _refuse_words(element: ET.Element) -> None:
    for words in (element.text, *(child.tail for child in element)):
        if words and words.strip():
            raise TwimlError(NOT_IN_SCHEMA, f"text is not allowed in <{element.tag}>")

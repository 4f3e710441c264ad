"""Writing to callers who didn't reach anybody."""

import re
from typing import Final

import structlog

from services.common.callers import has_number
from services.common.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    PolicyRefusedError,
)
from services.messaging.domain.call import Call
from services.messaging.domain.message import Template
from services.messaging.usecases.send import SendMessage

log = structlog.get_logger(__name__)

TEMPLATE: Final = re.compile(r"HX[0-9a-fA-F]{32}")
"""Twilio's ContentSid."""


class MissedCallReply:
    """Sends a WhatsApp message after a missed call or a voicemail, at most one for each call.

    Args:
        message: A text, or the ContentSid of a template. A text reaches only callers who wrote to
            us within the last 24 hours; others may be sent templates alone.
    """

    def __init__(self, send: SendMessage, message: str) -> None:
        self._send = send
        self._template = Template(message, {}) if TEMPLATE.fullmatch(message) else None
        self._body = "" if self._template else message

    async def __call__(self, call: Call) -> None:
        """Send it, unless it was sent or a rule forbids it.

        Raises:
            UnavailableError: The database can't be reached; asking again is safe.
        """
        if not has_number(call.caller):
            log.info("a missed call's number can't be written to", call_id=call.call_id)
            return
        try:
            await self._send(
                to=call.caller,
                body=self._body,
                template=self._template,
                request_id=f"missed-call:{call.call_id}",
            )
        except PolicyRefusedError as error:
            log.info("no message after a missed call", call_id=call.call_id, rule=error.rule)
        except IdempotencyConflictError:
            log.info("a missed call had its message, in other words", call_id=call.call_id)
        except InvalidInputError as error:
            log.warning(
                "no message after a missed call", call_id=call.call_id, problem=error.problem
            )

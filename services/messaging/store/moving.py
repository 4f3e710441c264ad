"""Which messages another provider may send instead."""

from datetime import datetime

from sqlalchemy import ColumnElement, Text, and_, cast, func, or_

from services.messaging.store.contact_models import ConversationRow
from services.messaging.store.message_models import MessageRow
from services.messaging.usecases.policy import SendPolicy

_NULL = "null"  # In a JSON column of SQLite.


def may_move_to(provider: str, policy: SendPolicy, now: datetime) -> ColumnElement[bool]:
    """Whether a provider can send a message, and its rules allow it now.

    What can't move stays where it is: rather late than refused. Every provider reaches phone
    numbers; other names of a contact mean something to one of them only.
    """
    is_template = func.coalesce(cast(MessageRow.template, Text), _NULL) != _NULL
    conditions = [MessageRow.contact_address.startswith("whatsapp:+")]
    if not policy.takes_templates(provider):
        conditions.append(~is_template)
    window = policy.window_of(provider)
    if window is not None:
        conditions.append(or_(is_template, ConversationRow.last_inbound_at > now - window))
    return and_(*conditions)

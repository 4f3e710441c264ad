"""Conversations on their way to `switchboard.messaging.v1`."""

from switchboard.messaging.v1 import conversation_pb2 as pb

from services.messaging.domain.conversation import Contact, Conversation
from services.messaging.grpc_api.messages import message_to_proto, timestamp


def conversation_to_proto(conversation: Conversation) -> pb.Conversation:
    """The conversation as it goes over the wire; unknown times are left unset."""
    closes_at = conversation.window_closes_at
    paused_at = conversation.assistant_paused_at
    last = conversation.last_message
    return pb.Conversation(
        id=conversation.id,
        contact=_contact(conversation.contact),
        contact_address=conversation.contact_address,
        own_address=conversation.own_address,
        created_at=timestamp(conversation.created_at),
        last_message_at=timestamp(conversation.last_message_at),
        window_closes_at=timestamp(closes_at) if closes_at else None,
        unread_count=conversation.unread_count,
        assistant_paused_at=timestamp(paused_at) if paused_at else None,
        assistant_paused_by=conversation.assistant_paused_by or "",
        last_message=message_to_proto(last) if last else None,
    )


def _contact(contact: Contact) -> pb.Contact:
    return pb.Contact(
        id=contact.id,
        display_name=contact.display_name,
        identities=[
            pb.Identity(kind=identity.kind, value=identity.value) for identity in contact.identities
        ],
        opted_out_at=timestamp(contact.opted_out_at) if contact.opted_out_at else None,
    )

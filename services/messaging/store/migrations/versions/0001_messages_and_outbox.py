"""Contacts, conversations, messages and the outbox."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "contacts",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("named_at", TIME, nullable=True),
        sa.Column("opted_out_at", TIME, nullable=True),
        sa.Column("last_opt_out_at", TIME, nullable=True),
        sa.Column("last_opt_in_at", TIME, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_contacts"),
    )
    op.create_table(
        "parked_statuses",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("event_key", sa.String(length=255), nullable=False),
        sa.Column("provider", sa.String(length=16), nullable=False),
        sa.Column("provider_message_id", sa.String(length=128), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=True),
        sa.Column("error_code", sa.String(length=32), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("occurred_at", TIME, nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("payload", DOCUMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_parked_statuses"),
        sa.UniqueConstraint("event_key", name="uq_parked_statuses_event_key"),
    )
    op.create_index(
        "ix_parked_statuses_provider_message",
        "parked_statuses",
        ["provider", "provider_message_id"],
    )

    op.create_table(
        "contact_identities",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("contact_id", ROW_ID, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("value", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["contact_id"], ["contacts.id"], name="fk_contact_identities_contact_id_contacts"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_contact_identities"),
        sa.UniqueConstraint("kind", "value", name="uq_contact_identities_kind_value"),
    )
    op.create_index("ix_contact_identities_contact_id", "contact_identities", ["contact_id"])

    op.create_table(
        "conversations",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("contact_id", ROW_ID, nullable=False),
        sa.Column("own_address", sa.String(length=255), nullable=False),
        sa.Column("contact_address", sa.String(length=255), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("last_message_at", TIME, nullable=False),
        sa.Column("last_inbound_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["contact_id"], ["contacts.id"], name="fk_conversations_contact_id_contacts"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_conversations"),
        sa.UniqueConstraint(
            "contact_id", "own_address", name="uq_conversations_contact_id_own_address"
        ),
        sa.UniqueConstraint("public_id", name="uq_conversations_public_id"),
    )
    op.create_index("ix_conversations_last_message_at", "conversations", ["last_message_at"])

    op.create_table(
        "messages",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("conversation_id", ROW_ID, nullable=False),
        sa.Column("direction", sa.String(length=8), nullable=False),
        sa.Column("author", sa.String(length=16), nullable=False),
        sa.Column("contact_address", sa.String(length=255), nullable=False),
        sa.Column("own_address", sa.String(length=255), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("media", DOCUMENT, nullable=False),
        sa.Column("provider", sa.String(length=16), nullable=False),
        sa.Column("provider_message_id", sa.String(length=128), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("error_code", sa.String(length=32), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("request_id", sa.String(length=255), nullable=True),
        sa.Column("request_hash", sa.String(length=64), nullable=True),
        sa.Column("answers_id", ROW_ID, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("sent_at", TIME, nullable=True),
        sa.Column("sent_source", sa.String(length=16), nullable=True),
        sa.Column("delivered_at", TIME, nullable=True),
        sa.Column("delivered_source", sa.String(length=16), nullable=True),
        sa.Column("read_at", TIME, nullable=True),
        sa.Column("read_source", sa.String(length=16), nullable=True),
        sa.Column("failed_at", TIME, nullable=True),
        sa.Column("failed_source", sa.String(length=16), nullable=True),
        sa.ForeignKeyConstraint(
            ["answers_id"], ["messages.id"], name="fk_messages_answers_id_messages"
        ),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name="fk_messages_conversation_id_conversations",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_messages"),
        sa.UniqueConstraint("answers_id", name="uq_messages_answers_id"),
        sa.UniqueConstraint(
            "provider", "provider_message_id", name="uq_messages_provider_provider_message_id"
        ),
        sa.UniqueConstraint("public_id", name="uq_messages_public_id"),
        sa.UniqueConstraint("request_id", name="uq_messages_request_id"),
    )
    op.create_index("ix_messages_conversation_id_id", "messages", ["conversation_id", "id"])

    op.create_table(
        "message_events",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("message_id", ROW_ID, nullable=False),
        sa.Column("event_key", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=True),
        sa.Column("error_code", sa.String(length=32), nullable=True),
        sa.Column("occurred_at", TIME, nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("payload", DOCUMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["message_id"], ["messages.id"], name="fk_message_events_message_id_messages"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_message_events"),
        sa.UniqueConstraint("event_key", name="uq_message_events_event_key"),
    )
    op.create_index("ix_message_events_message_id", "message_events", ["message_id"])

    op.create_table(
        "outbox",
        sa.Column("message_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("conversation_id", ROW_ID, nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("lease_until", TIME, nullable=True),
        sa.Column("first_attempt_at", TIME, nullable=True),
        sa.Column("last_attempt_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name="fk_outbox_conversation_id_conversations",
        ),
        sa.ForeignKeyConstraint(
            ["message_id"], ["messages.id"], name="fk_outbox_message_id_messages"
        ),
        sa.PrimaryKeyConstraint("message_id", name="pk_outbox"),
    )
    op.create_index(
        "ix_outbox_conversation_id_message_id", "outbox", ["conversation_id", "message_id"]
    )
    op.create_index("ix_outbox_state_due_at", "outbox", ["state", "due_at"])

    op.create_table(
        "pending_replies",
        sa.Column("conversation_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("up_to_id", ROW_ID, nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("latest_at", TIME, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_until", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name="fk_pending_replies_conversation_id_conversations",
        ),
        sa.ForeignKeyConstraint(
            ["up_to_id"], ["messages.id"], name="fk_pending_replies_up_to_id_messages"
        ),
        sa.PrimaryKeyConstraint("conversation_id", name="pk_pending_replies"),
    )
    op.create_index("ix_pending_replies_due_at", "pending_replies", ["due_at"])


def downgrade() -> None:
    for table in (
        "pending_replies",
        "outbox",
        "message_events",
        "messages",
        "conversations",
        "contact_identities",
        "parked_statuses",
        "contacts",
    ):
        op.drop_table(table)

"""Reading, watching, media and people."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)
LISTS = [
    ["created_at", "id"],
    ["conversation_id", "created_at", "id"],
    ["status", "created_at", "id"],
]


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    op.create_table(
        "media",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("content_type", sa.String(255), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_media"),
    )
    op.create_table(
        "conversation_aliases",
        sa.Column("public_id", sa.String(32), nullable=False),
        sa.Column("conversation_id", ROW_ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name="fk_conversation_aliases_conversation_id_conversations",
        ),
        sa.PrimaryKeyConstraint("public_id", name="pk_conversation_aliases"),
    )
    op.create_index(
        "ix_conversation_aliases_conversation_id", "conversation_aliases", ["conversation_id"]
    )
    op.create_table(
        "media_fetches",
        sa.Column("message_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("lease_until", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["message_id"], ["messages.id"], name="fk_media_fetches_message_id_messages"
        ),
        sa.PrimaryKeyConstraint("message_id", name="pk_media_fetches"),
    )
    op.create_index("ix_media_fetches_due_at", "media_fetches", ["due_at"])

    with op.batch_alter_table("contacts") as contacts:
        contacts.add_column(sa.Column("public_id", sa.String(32), nullable=True))
    random_id = "replace(gen_random_uuid()::text, '-', '')" if postgres else "hex(randomblob(16))"
    op.execute(f"UPDATE contacts SET public_id = lower({random_id})")  # noqa: S608 - Own words.
    with op.batch_alter_table("contacts") as contacts:
        contacts.alter_column("public_id", existing_type=sa.String(32), nullable=False)
        contacts.create_unique_constraint("uq_contacts_public_id", ["public_id"])

    with op.batch_alter_table("contact_identities") as identities:
        identities.add_column(sa.Column("named_at", TIME, nullable=True))
    with op.batch_alter_table("parked_statuses") as parked:
        parked.add_column(sa.Column("origin", sa.String(16), nullable=True))

    with op.batch_alter_table("conversations") as conversations:
        # The default stays for programs that don't know the column yet.
        conversations.add_column(
            sa.Column("unread_count", sa.Integer(), nullable=False, server_default="0")
        )
        conversations.add_column(sa.Column("read_up_to_id", sa.BigInteger(), nullable=True))
        conversations.add_column(sa.Column("paced_until", TIME, nullable=True))
        conversations.add_column(sa.Column("assistant_paused_at", TIME, nullable=True))
        conversations.add_column(sa.Column("assistant_paused_by", sa.String(16), nullable=True))
        conversations.drop_index("ix_conversations_last_message_at")
        conversations.create_index("ix_conversations_last_message_at_id", ["last_message_at", "id"])

    with op.batch_alter_table("outbox") as outbox:
        outbox.add_column(
            sa.Column("pinned", sa.Boolean(), nullable=False, server_default=sa.false())
        )
    # Nobody knows which of them were unknown before.
    op.execute("UPDATE outbox SET pinned = true WHERE attempts > 0")
    op.execute(
        "UPDATE outbox SET state = 'waiting' WHERE state = 'due' AND EXISTS"
        " (SELECT 1 FROM outbox AS older WHERE older.conversation_id = outbox.conversation_id"
        " AND older.message_id < outbox.message_id)"
    )

    with op.batch_alter_table("message_events") as events:
        events.add_column(sa.Column("error_message", sa.Text(), nullable=True))
        events.add_column(sa.Column("provider", sa.String(16), nullable=True))
        events.add_column(sa.Column("origin", sa.String(16), nullable=True))
        events.add_column(
            sa.Column(
                "transaction_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False
            )
        )
        events.create_index("ix_message_events_transaction_id_id", ["transaction_id", "id"])
    if postgres:
        op.execute(
            "ALTER TABLE message_events ALTER COLUMN transaction_id"
            " SET DEFAULT pg_current_xact_id()::text::bigint"
        )

    with op.batch_alter_table("messages") as messages:
        messages.add_column(sa.Column("template", DOCUMENT, nullable=True))
        messages.add_column(sa.Column("reply_to_id", ROW_ID, nullable=True))
        messages.drop_index("ix_messages_conversation_id_id")
        for columns in LISTS:
            messages.create_index(f"ix_messages_{'_'.join(columns)}", columns)
        messages.create_foreign_key(
            "fk_messages_reply_to_id_messages", "messages", ["reply_to_id"], ["id"]
        )


def downgrade() -> None:
    with op.batch_alter_table("messages") as messages:
        messages.drop_constraint("fk_messages_reply_to_id_messages", type_="foreignkey")
        for columns in LISTS:
            messages.drop_index(f"ix_messages_{'_'.join(columns)}")
        messages.create_index("ix_messages_conversation_id_id", ["conversation_id", "id"])
        messages.drop_column("reply_to_id")
        messages.drop_column("template")
    with op.batch_alter_table("message_events") as events:
        events.drop_index("ix_message_events_transaction_id_id")
        for name in ("transaction_id", "origin", "provider", "error_message"):
            events.drop_column(name)
    with op.batch_alter_table("conversations") as conversations:
        conversations.drop_index("ix_conversations_last_message_at_id")
        conversations.create_index("ix_conversations_last_message_at", ["last_message_at"])
        for name in (
            "assistant_paused_by",
            "assistant_paused_at",
            "paced_until",
            "read_up_to_id",
            "unread_count",
        ):
            conversations.drop_column(name)
    with op.batch_alter_table("outbox") as outbox:
        outbox.drop_column("pinned")
    op.execute("UPDATE outbox SET state = 'due' WHERE state = 'waiting'")
    with op.batch_alter_table("parked_statuses") as parked:
        parked.drop_column("origin")
    with op.batch_alter_table("contact_identities") as identities:
        identities.drop_column("named_at")
    with op.batch_alter_table("contacts") as contacts:
        contacts.drop_constraint("uq_contacts_public_id", type_="unique")
        contacts.drop_column("public_id")
    for table in ("media_fetches", "conversation_aliases", "media"):
        op.drop_table(table)

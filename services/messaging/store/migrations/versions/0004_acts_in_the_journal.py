"""What messaging did follows into the journal."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
NOT_JOURNALED: dict[str, Any] = {
    "postgresql_where": sa.text("NOT journaled"),
    "sqlite_where": sa.text("journaled = 0"),
}


def upgrade() -> None:
    op.create_table(
        "conversation_events",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("conversation_id", ROW_ID, nullable=False),
        sa.Column("event_key", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("public_id", sa.String(32), nullable=False),
        sa.Column("paused_by", sa.String(16), nullable=True),
        sa.Column("message_id", ROW_ID, nullable=True),
        sa.Column("occurred_at", TIME, nullable=False),
        sa.Column("journaled", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name="fk_conversation_events_conversation_id_conversations",
        ),
        sa.ForeignKeyConstraint(
            ["message_id"], ["messages.id"], name="fk_conversation_events_message_id_messages"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_conversation_events"),
        sa.UniqueConstraint("event_key", name="uq_conversation_events_event_key"),
    )
    op.create_index(
        "ix_conversation_events_conversation_id", "conversation_events", ["conversation_id"]
    )
    op.create_index(
        "ix_conversation_events_unjournaled", "conversation_events", ["id"], **NOT_JOURNALED
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("holder", sa.String(32), nullable=False),
        sa.Column("lease_until", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
    with op.batch_alter_table("outbox") as outbox:
        outbox.add_column(
            sa.Column("restored", sa.Boolean(), nullable=False, server_default=sa.false())
        )
    with op.batch_alter_table("message_events") as events:
        events.add_column(
            sa.Column("journaled", sa.Boolean(), nullable=False, server_default=sa.true())
        )
    op.create_index("ix_message_events_unjournaled", "message_events", ["id"], **NOT_JOURNALED)

    # Of what was settled before, nothing follows. Of the rest all does.
    op.execute(
        "UPDATE message_events SET journaled = false WHERE kind IN ('queued', 'attempt', 'outcome')"
        " AND message_id IN (SELECT message_id FROM outbox)"
    )
    new = (
        "INSERT INTO conversation_events"
        " (conversation_id, event_key, kind, public_id, paused_by, message_id, occurred_at,"
        " journaled)"
    )
    op.execute(
        f"{new} SELECT id, 'opened:' || public_id, 'opened', public_id, NULL, NULL, created_at,"  # noqa: S608 - Own words.
        " false FROM conversations ORDER BY id"
    )
    op.execute(
        f"{new} SELECT id, 'paused:' || public_id, 'paused', public_id, assistant_paused_by, NULL,"  # noqa: S608 - Own words.
        " assistant_paused_at, false FROM conversations WHERE assistant_paused_at IS NOT NULL"
    )
    op.execute(
        f"{new} SELECT id, 'read:' || public_id, 'read', public_id, NULL, read_up_to_id,"  # noqa: S608 - Own words.
        " last_message_at, false FROM conversations WHERE read_up_to_id IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_index("ix_message_events_unjournaled", "message_events")
    with op.batch_alter_table("message_events") as events:
        events.drop_column("journaled")
    with op.batch_alter_table("outbox") as outbox:
        outbox.drop_column("restored")
    op.drop_table("leases")
    op.drop_table("conversation_events")

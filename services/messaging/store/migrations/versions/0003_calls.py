"""Telephone calls."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "calls",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("provider", sa.String(16), nullable=False),
        sa.Column("provider_call_id", sa.String(128), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=True),
        sa.Column("caller", sa.String(255), nullable=False),
        sa.Column("called", sa.String(255), nullable=False),
        sa.Column("language", sa.String(35), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("answered_at", TIME, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("ended_by", sa.String(255), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_calls"),
        sa.UniqueConstraint(
            "provider_call_id", "provider", name="uq_calls_provider_call_id_provider"
        ),
    )
    for columns in (
        ["started_at", "id"],
        ["caller", "started_at", "id"],
        ["called", "started_at", "id"],
        ["outcome", "started_at", "id"],
    ):
        op.create_index(f"ix_calls_{'_'.join(columns)}", "calls", columns)
    op.create_table(
        "call_turns",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("call_id", ROW_ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("voicemail", sa.Boolean(), nullable=False),
        sa.Column("recording_id", sa.String(128), nullable=True),
        sa.Column("recording_url", sa.Text(), nullable=False),
        sa.Column("has_recording", sa.Boolean(), nullable=False),
        sa.Column("recording_duration_ms", sa.Integer(), nullable=True),
        sa.Column("digits", sa.String(255), nullable=False),
        sa.Column("heard_at", TIME, nullable=True),
        sa.Column("transcript", sa.Text(), nullable=False),
        sa.Column("language", sa.String(35), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column("played", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_until", TIME, nullable=True),
        sa.Column("fetch_ms", sa.Integer(), nullable=True),
        sa.Column("transcribe_ms", sa.Integer(), nullable=True),
        sa.Column("first_sentence_ms", sa.Integer(), nullable=True),
        sa.Column("first_audio_ms", sa.Integer(), nullable=True),
        sa.Column("gap_ms", sa.Integer(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name="fk_call_turns_call_id_calls"),
        sa.PrimaryKeyConstraint("id", name="pk_call_turns"),
        sa.UniqueConstraint("call_id", "number", name="uq_call_turns_call_id_number"),
    )
    op.create_index("ix_call_turns_state_heard_at", "call_turns", ["state", "heard_at"])
    op.create_index("ix_call_turns_has_recording_id", "call_turns", ["has_recording", "id"])
    op.create_table(
        "call_turn_parts",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("turn_id", ROW_ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("audio_id", sa.String(64), nullable=True),
        sa.ForeignKeyConstraint(
            ["turn_id"], ["call_turns.id"], name="fk_call_turn_parts_turn_id_call_turns"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_call_turn_parts"),
        sa.UniqueConstraint("turn_id", "number", name="uq_call_turn_parts_turn_id_number"),
    )
    op.create_table(
        "call_events",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("call_id", ROW_ID, nullable=False),
        sa.Column("event_key", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("occurred_at", TIME, nullable=False),
        sa.Column("payload", DOCUMENT, nullable=False),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name="fk_call_events_call_id_calls"),
        sa.PrimaryKeyConstraint("id", name="pk_call_events"),
        sa.UniqueConstraint("event_key", name="uq_call_events_event_key"),
    )
    op.create_index("ix_call_events_call_id", "call_events", ["call_id"])


def downgrade() -> None:
    for table in ("call_events", "call_turn_parts", "call_turns", "calls"):
        op.drop_table(table)

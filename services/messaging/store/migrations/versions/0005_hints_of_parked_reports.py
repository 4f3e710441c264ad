"""A parked report keeps our own id of its message."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("parked_statuses") as parked:
        parked.add_column(sa.Column("message_id", sa.String(64), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("parked_statuses") as parked:
        parked.drop_column("message_id")

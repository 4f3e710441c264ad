"""Adding status reports to messages, within the caller's transaction."""

import functools
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, Select, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.domain.message import (
    Delivery,
    Direction,
    EventKind,
    MessageStatus,
    Moment,
    StatusReport,
    TimeSource,
    fold,
)
from services.messaging.store.bulk import among, insert_many, one_of, update_many
from services.messaging.store.deeds import DONE, from_payload, names_of_contacts, payload_of
from services.messaging.store.event_models import MessageEventRow, ParkedStatusRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.outcomes import leave_outbox
from services.messaging.store.rows import (
    DELIVERY_COLUMNS,
    delivery_of,
    delivery_values,
)
from services.messaging.store.work_models import OutboxRow

_MAX_MESSAGE_ID: Final = 64


@dataclass(slots=True)
class _Target:
    """A stored message and what reports make of it."""

    row: Row[*tuple[Any, ...]]
    provider_message_id: str | None
    delivery: Delivery
    reported: bool = False

    @property
    def changed(self) -> bool:
        return (
            self.provider_message_id != self.row.provider_message_id
            or self.delivery != delivery_of(self.row)
        )


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of reports.

    Attributes:
        unmatched: Those whose message isn't known, or is another contact's.
        made_known: Of messages that are known by the provider's id since now: that id.
    """

    unmatched: Sequence[StatusReport] = ()
    made_known: frozenset[str] = frozenset()


async def apply_reports(connection: AsyncConnection, reports: Iterable[StatusReport]) -> Applied:
    """Add reports to their messages.

    A report that carries our own message id also settles a send whose outcome isn't known: the
    provider has the message, so the message learns its id there and leaves the outbox.
    """
    # Sorted: what two reports in one transaction decide must not depend on their arrival.
    ordered = sorted({one.event_key: one for one in reports}.items())
    remaining = [report for _, report in ordered]
    if not remaining:
        return Applied()
    hints = {report.message_id for report in remaining if report.message_id}
    unsettled = await _lock_outbox(connection, hints)
    targets = await _lock_messages(connection, remaining, hints)
    matched, unmatched = _match(targets, remaining)
    matched, foreign = await _of_their_contacts(connection, matched)
    unmatched += foreign
    if not matched:
        return Applied(unmatched)
    await insert_many(
        connection, MessageEventRow, [_event(target, report) for target, report in matched]
    )
    for target, report in matched:
        if target.row.direction == Direction.OUTBOUND.value:
            target.delivery = fold(target.delivery, report)
            target.reported = True
    changes = {
        one.row.id: {
            "provider_message_id": one.provider_message_id,
            **delivery_values(one.delivery),
        }
        for one in targets
        if one.changed
    }
    await update_many(connection, MessageRow, changes)
    await _apply_edits(connection, matched)
    # A replay may have brought a message back between the two looks, and its place with it.
    learnt = {one.row.id for one in targets if one.row.provider_message_id is None}
    settled = sorted((unsettled | learnt) & {one.row.id for one in targets if one.reported})
    if settled:
        await leave_outbox(connection, settled)
    made_known = [
        one.provider_message_id
        for one in targets
        if one.provider_message_id and one.row.provider_message_id is None
    ]
    return Applied(unmatched, frozenset(made_known))


async def park(connection: AsyncConnection, reports: Sequence[StatusReport]) -> None:
    """Keep reports whose message isn't known yet, or isn't known to be their contact's."""
    await insert_many(
        connection,
        ParkedStatusRow,
        [
            {
                "event_key": report.event_key,
                "provider": report.provider,
                "provider_message_id": report.provider_message_id,
                # Whatever came in the query string; ours are never longer.
                "message_id": (report.message_id or "")[:_MAX_MESSAGE_ID] or None,
                "status": report.status.value if report.status else None,
                "error_code": report.error_code,
                "error_message": report.error_message,
                "origin": report.origin or None,
                "occurred_at": report.moment.at,
                "source": report.moment.source.value,
                "payload": payload_of(report),
            }
            for report in sorted(reports, key=lambda one: one.event_key)
        ],
    )


def parked_report(row: Row[*tuple[Any, ...]]) -> StatusReport:
    """The report in a row of `parked_statuses`."""
    return StatusReport(
        event_key=row.event_key,
        provider=row.provider,
        provider_message_id=row.provider_message_id,
        status=MessageStatus(row.status) if row.status else None,
        moment=Moment(row.occurred_at, TimeSource(row.source)),
        message_id=row.message_id,
        error_code=row.error_code,
        error_message=row.error_message,
        origin=row.origin or "",
        **from_payload(row.payload),
    )


async def _lock_outbox(connection: AsyncConnection, public_ids: Collection[str]) -> set[int]:
    """Lock the messages' places in the outbox before the messages themselves, as sending does."""
    if not public_ids:
        return set()
    found = await connection.scalars(
        _places(connection.dialect.name), {"public_ids": list(public_ids)}
    )
    return set(found)


@functools.cache
def _places(dialect: str) -> Select[int]:
    return (
        select(OutboxRow.message_id)
        .join(MessageRow, MessageRow.id == OutboxRow.message_id)
        .where(among(dialect, MessageRow.public_id, "public_ids"))
        .order_by(OutboxRow.message_id)
        .with_for_update(of=OutboxRow)
    )


async def _lock_messages(
    connection: AsyncConnection, reports: Sequence[StatusReport], public_ids: Collection[str]
) -> list[_Target]:
    theirs: dict[str, set[str]] = defaultdict(set)
    for report in reports:
        theirs[report.provider].add(report.provider_message_id)
    providers = tuple(sorted(theirs))
    rows = await connection.execute(
        _reported_messages(connection.dialect.name, providers),
        {
            "public_ids": list(public_ids),
            **{f"ids_{place}": list(theirs[name]) for place, name in enumerate(providers)},
        },
    )
    return [_Target(row, row.provider_message_id, delivery_of(row)) for row in rows]


@functools.cache
def _reported_messages(dialect: str, providers: Sequence[str]) -> Select[*tuple[Any, ...]]:
    """By our own ids, and by those of each provider."""
    of_providers = [
        and_(
            MessageRow.provider == name,
            among(dialect, MessageRow.provider_message_id, f"ids_{place}"),
        )
        for place, name in enumerate(providers)
    ]
    return (
        select(
            MessageRow.id,
            MessageRow.public_id,
            MessageRow.conversation_id,
            MessageRow.direction,
            MessageRow.provider,
            MessageRow.provider_message_id,
            *DELIVERY_COLUMNS,
        )
        .where(or_(among(dialect, MessageRow.public_id, "public_ids"), *of_providers))
        .order_by(MessageRow.id)
        .with_for_update()
    )


def _match(
    targets: Sequence[_Target], reports: Sequence[StatusReport]
) -> tuple[list[tuple[_Target, StatusReport]], list[StatusReport]]:
    by_public_id = {target.row.public_id: target for target in targets}
    by_provider_id = {
        (target.row.provider, target.provider_message_id): target for target in targets
    }
    # First what our own ids tell, so that a report without one profits whatever its place.
    for report in reports:
        key = (report.provider, report.provider_message_id)
        hinted = by_public_id.get(report.message_id or "")
        if hinted is not None and key not in by_provider_id and _may_be(hinted, report):
            hinted.provider_message_id = report.provider_message_id
            by_provider_id[key] = hinted
    matched: list[tuple[_Target, StatusReport]] = []
    unmatched: list[StatusReport] = []
    for report in reports:
        target = by_provider_id.get((report.provider, report.provider_message_id))
        if target is None:
            unmatched.append(report)
        else:
            matched.append((target, report))
    return matched, unmatched


async def _of_their_contacts(
    connection: AsyncConnection, matched: Sequence[tuple[_Target, StatusReport]]
) -> tuple[list[tuple[_Target, StatusReport]], list[StatusReport]]:
    """What is about a message of the contact that a report names, and the other reports."""
    ids = {target.row.conversation_id for target, report in matched if report.contact}
    names = await names_of_contacts(connection, ids) if ids else {}
    theirs: list[tuple[_Target, StatusReport]] = []
    foreign: list[StatusReport] = []
    for target, report in matched:
        if report.contact and names[target.row.conversation_id].isdisjoint(report.contact):
            foreign.append(report)
        else:
            theirs.append((target, report))
    return theirs, foreign


def _may_be(target: _Target, report: StatusReport) -> bool:
    """Whether our own id in a report may be believed: the query string is only a hint."""
    return (
        target.row.direction == Direction.OUTBOUND.value
        and target.row.provider == report.provider
        and target.provider_message_id is None
    )


def _event(target: _Target, report: StatusReport) -> dict[str, Any]:
    return {
        "message_id": target.row.id,
        "event_key": report.event_key,
        "kind": report.kind.value,
        "status": report.status.value if report.status else None,
        "error_code": report.error_code,
        "error_message": report.error_message,
        "provider": report.provider,
        "origin": report.origin or None,
        "occurred_at": report.moment.at,
        "source": report.moment.source.value,
        "payload": payload_of(report),
    }


async def _apply_edits(
    connection: AsyncConnection, matched: Sequence[tuple[_Target, StatusReport]]
) -> None:
    """Give messages the text of their newest edit by whoever wrote them."""
    ids = {
        target.row.id
        for target, report in matched
        if report.kind is EventKind.EDIT
        and report.by_us == (target.row.direction == Direction.OUTBOUND.value)
    }
    if not ids:
        return
    rows = await connection.execute(
        select(MessageEventRow.message_id, MessageEventRow.payload)
        .where(
            one_of(connection, MessageEventRow.message_id, ids),
            MessageEventRow.kind == EventKind.EDIT.value,
        )
        .order_by(MessageEventRow.occurred_at, MessageEventRow.event_key)
    )
    by_us = {
        target.row.id: target.row.direction == Direction.OUTBOUND.value for target, _ in matched
    }
    newest = {
        row.message_id: {"body": row.payload["text"]}
        for row in rows
        if row.payload[DONE]["by_us"] == by_us[row.message_id]
    }
    await update_many(connection, MessageRow, newest)

"""Providers and queues on their way to `switchboard.messaging.v1`."""

from switchboard.messaging.v1 import provider_pb2 as pb

from services.messaging.grpc_api.messages import timestamp
from services.messaging.ports.provider_status import Pairing, ProviderState, ProviderStatus
from services.messaging.ports.reading import QueueSizes

_STATES = {
    ProviderState.HEALTHY: pb.PROVIDER_STATE_HEALTHY,
    ProviderState.DEGRADED: pb.PROVIDER_STATE_DEGRADED,
    ProviderState.UNAVAILABLE: pb.PROVIDER_STATE_UNAVAILABLE,
    ProviderState.UNTRIED: pb.PROVIDER_STATE_UNTRIED,
}


def provider_to_proto(status: ProviderStatus) -> pb.ProviderStatus:
    """The provider's status as it goes over the wire."""
    succeeded, failed, retry = status.last_success_at, status.last_failure_at, status.retry_at
    return pb.ProviderStatus(
        name=status.name,
        state=_STATES[status.state],
        reason=status.reason,
        last_success_at=timestamp(succeeded) if succeeded else None,
        last_failure_at=timestamp(failed) if failed else None,
        last_error=status.last_error or "",
        retry_at=timestamp(retry) if retry else None,
        pairing=_pairing(status.pairing),
    )


def _pairing(pairing: Pairing | None) -> pb.Pairing | None:
    if pairing is None:
        return None
    return pb.Pairing(qr=pairing.qr, code=pairing.code, expires_at=timestamp(pairing.expires_at))


def queues_to_proto(sizes: QueueSizes) -> pb.QueueSizes:
    """The queues' sizes as they go over the wire."""
    oldest = sizes.oldest_unsettled_at
    return pb.QueueSizes(
        due=sizes.due,
        sending=sizes.sending,
        unknown=sizes.unknown,
        replies=sizes.replies,
        parked=sizes.parked,
        oldest_unsettled_at=timestamp(oldest) if oldest else None,
    )

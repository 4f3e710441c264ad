from http import HTTPStatus

import grpc

from services.common.errors import error_kinds


def test_each_error_maps_once() -> None:
    """Every kind of error has its own reason, a real gRPC code and a real HTTP status."""
    kinds = error_kinds()
    assert len({kind.reason for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert kind.grpc_code in grpc.StatusCode.__members__
        assert HTTPStatus(kind.http_status) >= HTTPStatus.BAD_REQUEST

"""`python -m services.common.healthcheck URL`: exits with 0 when a service says it is well.

For containers: the image needs neither a shell nor curl. `grpc://host:port` asks the standard
health service, http:// an address that answers 200.
"""

import http.client
import sys
from typing import Any
from urllib.parse import urlsplit

_SECONDS = 3.0


def is_healthy(url: str) -> bool:
    """Whether the service at `url` answers well within three seconds."""
    parts = urlsplit(url)
    if parts.scheme == "grpc":
        return _grpc_serves(parts.netloc)
    connection = http.client.HTTPConnection(parts.netloc, timeout=_SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _grpc_serves(address: str) -> bool:
    # Half of the time that a check of HTTP takes would go into this import.
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # Its type has no methods.
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(not is_healthy(sys.argv[1]))

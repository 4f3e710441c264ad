"""Addresses that no client would write: nothing is found beside what is served."""

from urllib.parse import quote_from_bytes

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.attacks import Attacks
from tests.support.edge import Edge
from tests.support.raw_http import END, Raw, exchange, statuses

ID = "0" * 64
PREFIXES = [b"/audio/", b"/audio", b"/voice/voicemail/", b"/api/media/", b"/webhook/", b"/"]
UP = [b"../", b"..\\", b"..%2f", b"%2e%2e/", b"%252e%252e%252f", b"..;/", b"....//", b"..%c0%af"]
ENDS = [
    b"etc/passwd",
    b"proc/self/environ",
    b".env",
    b"internal/health",
    b"metrics",
    f"audio/{ID}.mp3".encode(),
    b"webhook/whatsapp/incoming",
]
FIXED = [
    *(prefix + up * 8 + end for prefix in PREFIXES for up in UP for end in ENDS[:4]),
    *(prefix + b"http://127.0.0.1/" + end for prefix in PREFIXES for end in ENDS),
    *(b"http://evil.example.com" + prefix + ID.encode() for prefix in PREFIXES),
    *(b"/audio/" + ID.encode() + tail for tail in (b"%00.mp3", b".mp3%00", b".mp3/", b".mp3;x")),
    *(b"/audio/" + ID.encode() + tail for tail in (b".mp3%0d%0aX: y", b".mp3?/../..", b"%2emp3")),
    b"/audio/" + "٠".encode() * 64 + b".mp3",  # noqa: RUF001 - An Arabic zero.
    b"/audio/" + "０".encode() * 64 + b".mp3",  # noqa: RUF001 - Full-width digits.
    b"/audio/" + b"A" * 60_000 + b".mp3",
    b"/audio/" + b"%41" * 20_000 + b".mp3",
    b"/" * 60_000,
    b"//evil.example.com/%2f..",
    b"/\\evil.example.com",
    b"*",
    b"?",
    b"#",
]
tails = st.binary(max_size=12).map(lambda tail: quote_from_bytes(tail).encode())
tails |= st.lists(
    st.sampled_from([*UP, *ENDS, b"%00", b"%ff", b"%", b"?", b";", b"\xff", b"~"])
).map(b"".join)


async def test_nothing_is_found_beside(edge: Edge, attacks: Attacks) -> None:
    """Up, encoded, with NUL, overlong, absolute or mere noise: an error of the sender's."""
    found = list(FIXED)

    @settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(PREFIXES), tails)
    def find(prefix: bytes, tail: bytes) -> None:
        found.append(prefix + tail)

    find()
    for target in found:
        for method in (b"GET", b"POST"):
            answer = await exchange(edge.port, Raw(target, method=method).encoded(), END)
            first = statuses(answer)[0]
            # Of the words that a caller hears when all else fails there is no secret.
            spoken = target.startswith(b"/voice/voicemail/") and b"<Response>" in answer
            attacks.count(
                "paths", through=not (400 <= first < 500 or spoken), evidence=(target, answer)
            )

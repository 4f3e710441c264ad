"""`/audio/{sha256}.mp3` over HTTP, with a real object store behind it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from nats.aio.client import Client

from services.common.audio import AudioBucket, BucketConfig
from tests.support.edge import Edge, journal_client, running_edge
from tests.support.nats import NatsServer

ID = "0123456789abcdef" * 4
URL = f"/audio/{ID}.mp3"
CONTENT = bytes(range(256)) * 1000
LENGTH = len(CONTENT)


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    async with journal_client(nats_server.url) as client:
        yield client


@pytest.fixture
async def edge(client: Client, tmp_path: Path) -> AsyncIterator[Edge]:
    bucket = AudioBucket(client, config=BucketConfig(ttl=timedelta(days=1), replicas=1))
    await bucket.put(ID, CONTENT)
    async with running_edge(client, tmp_path / "spill.db", audio_misses_per_minute=3) as edge:
        yield edge


def outcome(edge: Edge, name: str) -> float:
    labels = {"outcome": name}
    return edge.registry.get_sample_value("switchboard_audio_requests_total", labels) or 0


async def test_a_file_is_given_out_to_be_kept_for_ever(edge: Edge) -> None:
    """MP3 with its length and ETag, never to be asked for again; the second time from memory."""
    for _ in range(2):
        response = await edge.http.get(URL)
        assert response.status_code == 200
        assert response.content == CONTENT
        assert response.headers["content-type"] == "audio/mpeg"
        assert response.headers["content-length"] == str(LENGTH)
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["etag"] == f'"{ID}"'
        assert response.headers["accept-ranges"] == "bytes"
        assert response.headers["x-content-type-options"] == "nosniff"
    assert (outcome(edge, "store"), outcome(edge, "memory")) == (1, 1)


async def test_head_tells_all_but_the_content(edge: Edge) -> None:
    """The same headers, no body, and no part of one."""
    got, head = await edge.http.get(URL), await edge.http.head(URL, headers={"range": "bytes=0-1"})
    assert (head.status_code, head.content) == (200, b"")
    ignored = {"date"}
    assert {k: v for k, v in head.headers.items() if k not in ignored} == {
        k: v for k, v in got.headers.items() if k not in ignored
    }


@pytest.mark.parametrize(
    "tags", [f'"{ID}"', f'W/"{ID}"', f'"other", "{ID}"', "*"], ids=["it", "weak", "list", "any"]
)
async def test_who_has_it_gets_304(edge: Edge, tags: str) -> None:
    """By its ETag, however it is shown; another one doesn't count."""
    response = await edge.http.get(URL, headers={"if-none-match": tags})
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == f'"{ID}"'
    assert (await edge.http.get(URL, headers={"if-none-match": '"x"'})).status_code == 200


@pytest.mark.parametrize(
    ("wanted", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=100-", 100, LENGTH),
        ("bytes=-5", LENGTH - 5, LENGTH),
        (f"bytes=-{LENGTH + 5}", 0, LENGTH),
        (f"bytes=5-{10**17}", 5, LENGTH),
    ],
)
async def test_a_part(edge: Edge, wanted: str, first: int, end: int) -> None:
    """206 with exactly the bytes that were asked for."""
    response = await edge.http.get(URL, headers={"range": wanted})
    assert (response.status_code, response.content) == (206, CONTENT[first:end])
    assert response.headers["content-range"] == f"bytes {first}-{end - 1}/{LENGTH}"
    assert response.headers["content-length"] == str(end - first)


@pytest.mark.parametrize("wanted", [f"bytes={LENGTH}-", f"bytes={10**17}-{10**17}", "bytes=-0"])
async def test_a_part_that_is_not_there(edge: Edge, wanted: str) -> None:
    """416, and how long the file is."""
    response = await edge.http.get(URL, headers={"range": wanted})
    assert (response.status_code, response.content) == (416, b"")
    assert response.headers["content-range"] == f"bytes */{LENGTH}"


@pytest.mark.parametrize(
    "wanted",
    ["bytes=0-1,3-4", "bytes=-", "bytes=9-1", "lines=1-2", "bytes=a-b", "bytes", "=" * 999],
)
async def test_a_range_that_is_not_understood(edge: Edge, wanted: str) -> None:
    """Ignored, as RFC 9110 allows: all of it is sent."""
    response = await edge.http.get(URL, headers={"range": wanted})
    assert (response.status_code, len(response.content)) == (200, LENGTH)


async def test_a_part_of_another_version(edge: Edge) -> None:
    """Who has begun with another file gets this one whole."""
    asked = {"range": "bytes=0-1", "if-range": '"other"'}
    assert (await edge.http.get(URL, headers=asked)).status_code == 200
    asked["if-range"] = f'"{ID}"'
    assert (await edge.http.get(URL, headers=asked)).status_code == 206


@pytest.mark.parametrize(
    "path",
    [
        f"/audio/{'0' * 64}.mp3",
        f"/audio/{ID}",
        f"/audio/{ID}.wav",
        f"/audio/{ID.upper()}.mp3",
        f"/audio/{ID}.mp3.mp3",
        "/audio/.mp3",
        "/audio/",
        "/audio",
        "/audio/..%2F..%2Fetc%2Fpasswd",
        "/audio/%2e%2e/internal/health",
        "/audio/*.mp3",
        f"/audio/{ID}%0A.mp3",
        f"/audio/{ID}%00.mp3",
    ],
)
async def test_any_other_name_is_404(edge: Edge, path: str) -> None:
    """Nothing can be guessed, listed or reached beside."""
    response = await edge.http.get(path)
    assert response.status_code == 404
    assert ID not in response.text


async def test_who_guesses_is_slowed_down(edge: Edge) -> None:
    """After some misses a sender gets 429 with the time to wait; what is in memory still passes."""
    assert (await edge.http.get(URL)).status_code == 200
    misses = [(await edge.http.get(f"/audio/{'0' * 63}{n}.mp3")).status_code for n in range(5)]
    assert misses == [404, 404, 404, 429, 429]
    limited = await edge.http.get(f"/audio/{'f' * 64}.mp3")
    assert 0 < int(limited.headers["retry-after"]) <= 61
    assert (await edge.http.get(URL)).status_code == 200
    elsewhere = await edge.http.get(
        f"/audio/{'0' * 64}.mp3", headers={"x-forwarded-for": "192.0.2.7"}
    )
    assert elsewhere.status_code == 404


async def test_without_the_store_it_says_so(edge: Edge, nats_server: NatsServer) -> None:
    """503 and when to come back; nobody caches that. What is in memory is still given out."""
    nats_server.pause()
    answers = await asyncio.gather(*(edge.http.get(URL) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {503}
    assert answers[0].headers["retry-after"] == "1"
    assert answers[0].headers["cache-control"] == "no-store"
    nats_server.resume()
    assert (await edge.http.get(URL)).status_code == 200
    nats_server.pause()
    assert (await edge.http.get(URL)).status_code == 200
    nats_server.resume()


async def test_only_get_and_head(edge: Edge) -> None:
    """There is nothing to change here."""
    response = await edge.http.post(URL)
    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}

"""WAV files as Twilio records them, with the words inside for whoever pretends to listen."""

import math
import random
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

RATE = 8000
"""Samples a second; 16 bits each, one channel."""

_HEADER = struct.Struct("<HHIIHH")
_PCM = 1
_COMMENT, _SOURCE = b"ICMT", b"ISRC"


class NotWavError(Exception):
    """The bytes are no WAV file of 16-bit PCM; the text says why."""


@dataclass(frozen=True)
class Wav:
    """What a file holds.

    Attributes:
        text: What is said in it; None when the file doesn't tell, as any real one.
        source: The recording it is; None likewise.
    """

    seconds: float
    loudest: int
    text: str | None
    source: str | None


def silence(seconds: float) -> bytes:
    """Samples of a quiet line: not quite zero, as no line is."""
    return _repeated(_hiss(), seconds)


def speech(seconds: float) -> bytes:
    """Samples with the energy and the rhythm of speech."""
    return _repeated(_babble(), seconds)


def wav_file(samples: bytes, *, text: str | None = None, source: str | None = None) -> bytes:
    """A file of these samples; text and source go into its INFO list."""
    entries = b"".join(
        _chunk(name, value.encode() + b"\0")
        for name, value in ((_COMMENT, text), (_SOURCE, source))
        if value is not None
    )
    body = b"WAVE" + _chunk(b"fmt ", _HEADER.pack(_PCM, 1, RATE, RATE * 2, 2, 16))
    if entries:
        body += _chunk(b"LIST", b"INFO" + entries)
    return _chunk(b"RIFF", body + _chunk(b"data", samples))


def samples_of(content: bytes) -> bytes:
    """The samples of a file as a telephone carries them: 8 kHz, 16 bits, one channel.

    Raises:
        NotWavError: It is no WAV file of 16-bit PCM.
    """
    (_, channels, rate, *_), samples, _ = _parts(content)
    values = array("h", samples[: len(samples) // 2 * 2])[::channels]
    if rate == RATE:
        return values.tobytes()
    step = rate / RATE
    return array("h", (values[int(n * step)] for n in range(int(len(values) / step)))).tobytes()


def read_wav(content: bytes) -> Wav:
    """What a file holds.

    Raises:
        NotWavError: It is no WAV file of 16-bit PCM.
    """
    (_, channels, rate, *_), samples, info = _parts(content)
    values = array("h", samples[: len(samples) // 2 * 2])
    loudest = max(max(values), -min(values)) if values else 0
    texts = {name: value.rstrip(b"\0").decode("utf-8", "replace") for name, value in info.items()}
    return Wav(
        seconds=len(samples) / 2 / channels / rate,
        loudest=loudest,
        text=texts.get(_COMMENT),
        source=texts.get(_SOURCE),
    )


def _parts(content: bytes) -> tuple[tuple[int, ...], bytes, dict[bytes, bytes]]:
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise NotWavError("it doesn't begin as a WAV file")
    header: tuple[int, ...] | None = None
    samples: bytes | None = None
    info: dict[bytes, bytes] = {}
    for name, data in _chunks(content, 12):
        if name == b"fmt " and len(data) >= _HEADER.size:
            header = _HEADER.unpack_from(data)
        elif name == b"data":
            samples = data
        elif name == b"LIST" and data[:4] == b"INFO":
            info = dict(_chunks(data, 4))
    if header is None or samples is None or not header[1] or not header[2]:
        raise NotWavError("it has no format or no samples")
    if header[0] != _PCM or header[5] != 16:
        raise NotWavError("it isn't 16-bit PCM")
    return header, samples, info


def _chunks(content: bytes, start: int) -> Iterator[tuple[bytes, bytes]]:
    while start + 8 <= len(content):
        length = int.from_bytes(content[start + 4 : start + 8], "little")
        yield content[start : start + 4], content[start + 8 : start + 8 + length]
        start += 8 + length + length % 2


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + len(data).to_bytes(4, "little") + data + b"\0" * (len(data) % 2)


def _repeated(second: bytes, seconds: float) -> bytes:
    count = round(seconds * RATE) * 2
    return (second * (count // len(second) + 1))[:count]


@cache
def _hiss() -> bytes:
    noise = random.Random(1)  # noqa: S311 - the same noise each time, and no secret.
    return array("h", [noise.randint(-6, 6) for _ in range(RATE)]).tobytes()


@cache
def _babble() -> bytes:
    """A second of a voice at 130 Hz with overtones, in four syllables."""
    noise = random.Random(2)  # noqa: S311 - as above.
    values = array("h")
    for index in range(RATE):
        at = index / RATE
        syllable = max(0.0, math.sin(math.tau * 2 * at)) ** 0.5 + 0.15
        voice = sum(math.sin(math.tau * 130 * n * at) / n for n in (1, 2, 3, 5))
        values.append(round(syllable * (2600 * voice + noise.uniform(-600, 600))))
    return values.tobytes()

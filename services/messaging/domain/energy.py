"""Whether anybody speaks in a recording, told by its loudness alone.

Transcribers turn silence into invented phrases, so what holds none of a voice is kept from them.
"""

import math
import operator
import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_PCM, _A_LAW, _MU_LAW, _EXTENSIBLE = 1, 6, 7, 0xFFFE

_FRAME_SECONDS: Final = 0.02
_MAX_SECONDS: Final = 60
"""Of a longer recording as many seconds are looked at, spread evenly."""
_MAX_RATE: Final = 192_000
_SAMPLES_OF_FRAME: Final = 160

_QUIETEST_SPEECH: Final = -50.0
"""In decibels below full scale; on the telephone speech is at -15 to -35."""
_ABOVE_NOISE: Final = 6.0
_SILENCE: Final = -96.0
_SHORTEST_RUN: Final = 3
"""Frames. A click is shorter."""
_SHORTEST_SPEECH: Final = 6
"""Frames in such runs; "yes" has fifteen."""


class NotAudioError(ValueError):
    """A file is no WAV file that can be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Wav:
    """Sound.

    Attributes:
        width: Bytes of a sample.
        data: Whole frames of samples, the channels alternating.
    """

    encoding: int
    channels: int
    rate: int
    width: int
    data: memoryview

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.data) / (self.width * self.channels * self.rate)


def parse_wav(content: bytes) -> Wav:
    """Read a WAV file: PCM of 8 or 16 bits, A-law or mu-law.

    Not by the standard library's `wave`, which knows PCM alone.

    Raises:
        NotAudioError: It is none of these.
    """
    if len(content) < 12 or content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise NotAudioError("the recording is no WAV file")
    view = memoryview(content)
    form: tuple[int, int, int, int] | None = None
    at = 12
    while at + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, at)
        at += 8
        if name == b"fmt ":
            form = _format(content, at, size)
        elif name == b"data":
            if form is None:
                raise NotAudioError("the recording's format isn't given before its sound")
            # A file that was written as a stream gives no size, or too large a one.
            rest = len(content) - at
            size = rest if size in (0, 0xFFFFFFFF) else min(size, rest)
            encoding, channels, rate, bits = form
            width = bits // 8
            whole = size - size % (width * channels)
            return Wav(encoding, channels, rate, width, view[at : at + whole])
        at += size + size % 2
    raise NotAudioError("the recording has no sound in it")


def has_speech(content: bytes) -> bool:
    """Whether somebody speaks in a recording, as far as loudness can tell.

    Neither constant noise, however loud, nor clicks are speech. It takes some tens of
    milliseconds at most, however long the recording.

    Raises:
        NotAudioError: It is no WAV file that can be read.
    """
    wav = parse_wav(content)
    return any(_speaks(_levels(wav, channel)) for channel in range(wav.channels))


def _format(content: bytes, at: int, size: int) -> tuple[int, int, int, int]:
    if size < 16 or at + 16 > len(content):
        raise NotAudioError("the recording's format is cut off")
    encoding, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", content, at)
    if encoding == _EXTENSIBLE and size >= 26 and at + 26 <= len(content):
        encoding = struct.unpack_from("<H", content, at + 24)[0]
    widths = {_PCM: (8, 16), _A_LAW: (8,), _MU_LAW: (8,)}
    if bits not in widths.get(encoding, ()):
        raise NotAudioError(f"the recording's encoding {encoding} of {bits} bits isn't understood")
    if channels not in (1, 2) or not 1000 <= rate <= _MAX_RATE:
        raise NotAudioError(f"the recording has {channels} channels at {rate} Hz")
    return encoding, channels, rate, bits


def _levels(wav: Wav, channel: int) -> list[float]:
    """Loudness of each frame that is looked at, in decibels below full scale."""
    per_frame = int(wav.rate * _FRAME_SECONDS)
    frames = len(wav.data) // (wav.width * wav.channels * per_frame)
    # Whole seconds are looked at, and in long recordings others left out.
    block = round(1 / _FRAME_SECONDS)
    blocks = -(-frames // block)
    step = max(1.0, blocks / _MAX_SECONDS)
    chosen = sorted({int(number * step) for number in range(min(blocks, _MAX_SECONDS))})
    stride = max(1, per_frame // _SAMPLES_OF_FRAME)
    return [
        _level(_samples(wav, channel, frame * per_frame, per_frame)[::stride])
        for number in chosen
        for frame in range(number * block, min((number + 1) * block, frames))
    ]


def _samples(wav: Wav, channel: int, first: int, count: int) -> Sequence[int]:
    size = wav.width * wav.channels
    raw = wav.data[first * size : (first + count) * size]
    if wav.width == 1:
        table = _TABLES[wav.encoding]
        return [table[byte] for byte in raw[channel :: wav.channels]]
    values = array("h")
    values.frombytes(raw)
    if sys.byteorder == "big":
        values.byteswap()
    return values[channel :: wav.channels]


def _level(samples: Sequence[int]) -> float:
    mean = sum(samples) / len(samples)
    # Not what a constant offset adds.
    power = sum(map(operator.mul, samples, samples)) / len(samples) - mean * mean
    return _SILENCE if power < 1.0 else 10 * math.log10(power) - 20 * math.log10(32768)


def _speaks(levels: Sequence[float]) -> bool:
    if not levels:
        return False
    noise = sorted(levels)[len(levels) // 10]
    threshold = max(_QUIETEST_SPEECH, noise + _ABOVE_NOISE)
    speech = run = 0
    for level in (*levels, _SILENCE):
        if level > threshold:
            run += 1
            continue
        speech += run if run >= _SHORTEST_RUN else 0
        run = 0
    return speech >= _SHORTEST_SPEECH


def _mu_law(byte: int) -> int:
    """ITU-T G.711."""
    byte = ~byte & 0xFF
    magnitude = (((byte & 0x0F) << 3) + 0x84) << ((byte & 0x70) >> 4)
    return 0x84 - magnitude if byte & 0x80 else magnitude - 0x84


def _a_law(byte: int) -> int:
    """ITU-T G.711."""
    byte ^= 0x55
    exponent, mantissa = (byte & 0x70) >> 4, (byte & 0x0F) << 4
    magnitude = mantissa + 8 if exponent == 0 else (mantissa + 0x108) << (exponent - 1)
    return magnitude if byte & 0x80 else -magnitude


_TABLES: Final = {
    _PCM: [(byte - 128) << 8 for byte in range(256)],
    _MU_LAW: [_mu_law(byte) for byte in range(256)],
    _A_LAW: [_a_law(byte) for byte in range(256)],
}

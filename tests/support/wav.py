"""Recordings to be heard by machines: sounds with something of a voice, and without."""

import math
import random
import struct
from array import array
from collections.abc import Callable, Sequence

RATE = 8000


def silence(seconds: float) -> list[int]:
    """Digital silence."""
    return [0] * int(seconds * RATE)


def noise(seconds: float, level: float, *, seed: int = 1) -> list[int]:
    """Constant noise, its loudness in decibels below full scale."""
    source = random.Random(seed)
    deviation = 32768 * 10 ** (level / 20)
    return [_clipped(source.gauss(0, deviation)) for _ in range(int(seconds * RATE))]


def voice(seconds: float, level: float = -25.0) -> list[int]:
    """Something that rises and falls as syllables do, its loudness in decibels."""
    peak = 32768 * 10 ** (level / 20) * 2
    samples = []
    for at in range(int(seconds * RATE)):
        time = at / RATE
        syllable = max(0.0, math.sin(2 * math.pi * 3.5 * time)) ** 0.5
        tone = math.sin(2 * math.pi * 140 * time) + 0.5 * math.sin(2 * math.pi * 700 * time)
        samples.append(_clipped(peak * syllable * tone / 1.5))
    return samples


def clicks(seconds: float, every: float = 0.5) -> list[int]:
    """Short loud clicks."""
    samples = silence(seconds)
    for at in range(0, len(samples) - 20, int(every * RATE)):
        samples[at : at + 20] = [20_000, -20_000] * 10
    return samples


def mixed(*sounds: Sequence[int]) -> list[int]:
    """Sounds of the same length on top of each other."""
    return [_clipped(sum(samples)) for samples in zip(*sounds, strict=True)]


def wav(
    samples: Sequence[int],
    *,
    other: Sequence[int] | None = None,
    bits: int = 16,
    encoding: int = 1,
    rate: int = RATE,
    encode: Callable[[int], int] | None = None,
    size: int | None = None,
    extra: bytes = b"",
) -> bytes:
    """A WAV file.

    Args:
        other: Samples of a second channel.
        encode: From a sample to a byte, where samples have 8 bits.
        size: What the file says of the length of its sound, if not the truth.
        extra: A chunk before the sound.
    """
    channels = 1 if other is None else 2
    if other is not None:
        samples = [one for both in zip(samples, other, strict=True) for one in both]
    if bits == 16:
        data = array("h", samples).tobytes()
    else:
        data = bytes((encode or (lambda sample: (sample >> 8) + 128))(one) for one in samples)
    width = channels * bits // 8
    form = struct.pack("<HHIIHH", encoding, channels, rate, rate * width, width, bits)
    chunks = struct.pack("<4sI", b"fmt ", len(form)) + form + extra
    chunks += struct.pack("<4sI", b"data", len(data) if size is None else size) + data
    return struct.pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WAVE") + chunks


def _clipped(sample: float) -> int:
    return max(-32768, min(32767, round(sample)))

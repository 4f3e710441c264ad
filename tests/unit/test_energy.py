"""Whether anybody speaks in a recording."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.messaging.domain.energy import NotAudioError, has_speech, parse_wav
from tests.support.wav import clicks, mixed, noise, silence, voice, wav


@pytest.mark.parametrize("level", [-15.0, -25.0, -38.0])
def test_a_voice_is_speech(level: float) -> None:
    """Speech is found, loud or quiet, with line noise below it and pauses around it."""
    sound = [*silence(1), *voice(1.2, level), *silence(2)]
    assert has_speech(wav(mixed(sound, noise(4.2, -60))))


def test_a_single_short_word_is_speech() -> None:
    """A caller who just says yes is heard, also when the recording holds nothing else."""
    assert has_speech(wav([*silence(0.3), *voice(0.3), *silence(2)]))
    assert has_speech(wav(voice(0.6)))


@pytest.mark.parametrize(
    "samples",
    [
        [],
        silence(0.01),
        silence(5),
        noise(5, -60),
        noise(5, -30),
        noise(5, -10),
        clicks(5),
        mixed(clicks(5), noise(5, -45)),
        [12_000] * 40_000,
    ],
    ids=["empty", "short", "silence", "quiet", "noise", "loud", "clicks", "crackle", "offset"],
)
def test_noise_is_not_speech(samples: list[int]) -> None:
    """Neither silence nor constant noise of any loudness, nor clicks, nor an offset, is speech."""
    assert not has_speech(wav(samples))


def test_a_voice_above_loud_noise_is_speech() -> None:
    """Somebody who calls from a noisy car is heard."""
    sound = [*silence(1), *voice(2, -15), *silence(1)]
    assert has_speech(wav(mixed(sound, noise(4, -32))))


def test_either_channel_may_hold_the_voice() -> None:
    """A recording of both sides is speech when one of them speaks."""
    for first, second in ((voice(1), silence(1)), (silence(1), voice(1))):
        assert has_speech(wav(first, other=second))
    assert not has_speech(wav(silence(1), other=noise(1, -40)))


def test_the_encodings_of_telephony() -> None:
    """8 bits, mu-law and A-law are read as well as 16 bits."""
    assert has_speech(wav([*silence(1), *voice(1)], bits=8))
    assert not has_speech(wav(silence(2), bits=8))
    for encoding, quiet, loud in ((7, 0xFF, 0x80), (6, 0xD5, 0xAA)):

        def encode(sample: int, quiet: int = quiet, loud: int = loud) -> int:
            return loud if sample > 4000 else loud & 0x7F if sample < -4000 else quiet

        sound = [*silence(1), *voice(1, -10), *silence(1)]
        assert has_speech(wav(sound, bits=8, encoding=encoding, encode=encode))
        assert not has_speech(wav(silence(2), bits=8, encoding=encoding, encode=encode))


def test_an_hour_is_looked_at_in_parts() -> None:
    """Of a long recording a minute is looked at, spread over its whole length."""
    quiet = noise(1, -60)
    hour = wav(quiet * 3600)
    assert not has_speech(hour)
    assert parse_wav(hour).seconds == 3600
    assert has_speech(wav([*quiet * 300, *(voice(1) * 600), *quiet * 300]))


def test_files_written_as_a_stream() -> None:
    """A file that doesn't know its own length, or has further chunks, is read to its end."""
    sound = [*silence(1), *voice(1)]
    extra = struct.pack("<4sI", b"LIST", 3) + b"abc\0"
    for size in (0, 0xFFFFFFFF, 10**9):
        assert has_speech(wav(sound, size=size, extra=extra))
    assert has_speech(wav(sound)[:-1])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>not found</html>",
        b"ID3\x04\x00" + bytes(100),
        b"RIFF\x00\x00\x00\x00WAVE",
        b"RIFF\x00\x00\x00\x00WAVEdata\x04\x00\x00\x00\x00\x00\x00\x00",
        b"RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00",
        wav(silence(1), encoding=85),
        wav(silence(1), rate=0),
        wav(silence(1))[:40],
    ],
)
def test_what_is_no_recording_is_refused(content: bytes) -> None:
    """A page, another format or a broken file is told apart from silence."""
    with pytest.raises(NotAudioError, match="recording"):
        has_speech(content)


@given(content=st.binary(max_size=200), head=st.sampled_from([b"", wav(silence(0.01))[:44]]))
def test_no_file_breaks_it(content: bytes, head: bytes) -> None:
    """Whatever comes is either looked at or refused."""
    for file in (head + content, content + head, head[:36] + content):
        with contextlib.suppress(NotAudioError):
            has_speech(file)

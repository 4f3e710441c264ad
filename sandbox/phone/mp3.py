"""MP3 as speech vendors make it and as Twilio plays it: real MPEG frames, here of silence."""

from collections.abc import Iterator

# MPEG 2 layer III, 24 kHz, 32 kbit/s, one channel: what Google makes. 24 ms a frame.
_FRAME_SECONDS = 0.024
_SILENT_FRAME = b"\xff\xf3\x44\xc4" + bytes(92)

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_BITRATES_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_BITRATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_LAYER_3 = 1
_TITLE = b"TIT2"
_UTF_16 = b"\x01"


class NotMp3Error(Exception):
    """The bytes are no MP3 that Twilio could play."""


def silent_mp3(seconds: float, title: str) -> bytes:
    """Silence, under a title that tells what is said in it."""
    text = _UTF_16 + title.encode("utf-16")
    frame = _TITLE + len(text).to_bytes(4, "big") + b"\0\0" + text
    tag = b"ID3\x03\0\0" + _synchsafe(len(frame)) + frame
    return tag + _SILENT_FRAME * max(1, round(seconds / _FRAME_SECONDS))


def mp3_seconds(content: bytes) -> float:
    """How long it plays.

    Raises:
        NotMp3Error: There are no frames, or something else stands between them.
    """
    seconds = sum(_durations(content, _tag_length(content)))
    if not seconds:
        raise NotMp3Error("there is no MPEG frame")
    return seconds


def mp3_title(content: bytes) -> str | None:
    """The title, which the pretend vendors set to the words that are spoken."""
    start, end = 10, _tag_length(content)
    while start + 10 <= end and content[start : start + 1].strip(b"\0"):
        length = int.from_bytes(content[start + 4 : start + 8], "big")
        value = content[start + 10 : start + 10 + length]
        if content[start : start + 4] == _TITLE and value[:1] == _UTF_16:
            return value[1:].decode("utf-16", "replace").rstrip("\0")
        start += 10 + length
    return None


def _durations(content: bytes, start: int) -> Iterator[float]:
    while start + 4 <= len(content):
        if content[start : start + 3] == b"TAG":
            return
        header = int.from_bytes(content[start : start + 4], "big")
        version, layer = header >> 19 & 3, header >> 17 & 3
        bitrate, rate = header >> 12 & 15, header >> 10 & 3
        if header >> 21 != 0x7FF or version == 1 or layer != _LAYER_3 or rate == 3:
            raise NotMp3Error(f"byte {start} begins no MPEG frame")
        if bitrate in (0, 15):
            raise NotMp3Error(f"byte {start} begins a frame without a bit rate")
        samples = 1152 if version == 3 else 576
        kilobits = (_BITRATES_1 if version == 3 else _BITRATES_2)[bitrate]
        hertz = _RATES[version][rate]
        yield samples / hertz
        start += samples // 8 * kilobits * 1000 // hertz + (header >> 9 & 1)


def _tag_length(content: bytes) -> int:
    if content[:3] != b"ID3" or len(content) < 10:
        return 0
    one, two, three, four = content[6:10]
    return 10 + (one << 21 | two << 14 | three << 7 | four)


def _synchsafe(length: int) -> bytes:
    return bytes(length >> shift & 0x7F for shift in (21, 14, 7, 0))

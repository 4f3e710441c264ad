"""How long callers wait, against what the vendors take.

`python -m benchmarks.voice` starts the real services, the broker and the sandbox as processes of
their own, lets callers ask for answers of five sentences that nobody has spoken before, and prints

- how much longer a caller waits for the first sound than recording, transcription, the first
  sentence's words and its speech take together (the vendors' latencies are configured);
- that wait, as a ratio to the same vendors asked one after the other: recording, transcription,
  whole answer, whole speech;
- the wait with 20 calls at once, as a ratio to that with one.

Callers don't speak in unison: calls at once begin a fifth of a second apart, and what they hear and
say takes its real time. In a call alone it goes by faster, which changes nothing about its waits.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks import results
from benchmarks.results import Result, say
from sandbox.phone.wav import silence, speech, wav_file
from tests.support.stack import RunningStack, running_stack

_LATENCIES = {
    "recording": 0.05,
    "transcription": 0.4,
    "answer": 0.4,
    "answer_word": 0.02,
    "google_speech": 0.2,
    "speech": 0.2,
    "speech_character": 0.007,
}
_SPEED_ALONE = 10.0
_APART_SECONDS = 0.2
_OPENAI_KEY = "sandbox-openai-key"


def _question(number: int) -> str:
    return f"Tell me more about flat number {number}"


def _vendors_ms(first_sentence: str) -> float:
    """What the vendors take until the first sentence is spoken."""
    words = len(first_sentence.split())
    return 1000 * (
        _LATENCIES["recording"]
        + _LATENCIES["transcription"]
        + _LATENCIES["answer"]
        + _LATENCIES["answer_word"] * (words - 1)
        + _LATENCIES["google_speech"]
        + _LATENCIES["speech_character"] * len(first_sentence)
    )


def _waits(call: dict[str, Any]) -> list[tuple[float, str]]:
    """How long the caller waited for each answer, in ms, and its first sentence."""
    if call["error_code"] is not None:
        raise SystemExit(f"an application error: {call['timeline']}")
    return [
        (entry["gap_ms"], entry["text"] or "")
        for entry in call["timeline"]
        if entry["kind"] == "playing" and entry["gap_ms"] is not None
    ]


def _calls(stack: RunningStack, at_once: int, turns: int, first: int) -> list[tuple[float, str]]:
    """The waits of so many calls."""
    numbers = iter(range(first, first + at_once * turns))
    speed = 1.0 if at_once > 1 else _SPEED_ALONE
    begun = []
    for _ in range(at_once):
        begun.append(stack.begin(*(_question(next(numbers)) for _ in range(turns)), speed=speed))
        time.sleep(_APART_SECONDS)
    waits = [wait for sid in begun for wait in _waits(stack.finished(sid))]
    if len(waits) != at_once * turns or any("has three rooms" not in text for _, text in waits):
        raise SystemExit(f"not every question was answered by speech of ours: {waits}")
    return waits


def _one_after_the_other(stack: RunningStack, number: int) -> float:
    """Milliseconds that the same vendors take for the same question, each asked for the whole."""
    question = _question(number)
    wav = wav_file(silence(0.3) + speech(3) + silence(2), text=question, source=f"RE{number}")
    headers = {"Authorization": f"Bearer {_OPENAI_KEY}"}
    with httpx.Client(
        base_url=f"{stack.addresses.sandbox}/openai/v1", headers=headers, trust_env=False
    ) as openai:
        openai.get("/models").raise_for_status()
        started = time.perf_counter()
        time.sleep(_LATENCIES["recording"])
        heard = openai.post(
            "/audio/transcriptions",
            data={"model": "gpt-transcribe"},
            files={"file": ("recording.wav", wav, "audio/wav")},
        ).raise_for_status()
        answer = openai.post(
            "/responses", json={"model": "gpt-6-luna", "input": heard.json()["text"]}
        ).raise_for_status()
        text = answer.json()["output"][0]["content"][0]["text"]
        # OpenAI's speech takes as long as Google's here, and needs no token.
        openai.post(
            "/audio/speech", json={"model": "tts-1", "voice": "alloy", "input": text}
        ).raise_for_status()
        return 1000 * (time.perf_counter() - started)


def _median(waits: Sequence[tuple[float, str]]) -> float:
    return statistics.median(wait for wait, _ in waits)


def measure(options: argparse.Namespace) -> list[Result]:
    """Calls alone, at once, and the vendors by themselves, in turns."""
    variables = {"SANDBOX_RECORDING_AFTER": "0", "LOG_LEVEL": "warning"}
    alone: list[Sequence[tuple[float, str]]] = []
    together: list[Sequence[tuple[float, str]]] = []
    in_order: list[float] = []
    used: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory(prefix="bench") as folder,
        running_stack(Path(folder), variables) as stack,
    ):
        stack.reset(**_LATENCIES)
        numbers = iter(range(0, 10**6, 1000))
        # Connections, tokens and fillers are there from now on, as in any call but the first.
        _calls(stack, 1, 2, next(numbers))
        for _ in range(options.rounds):
            alone.append(_calls(stack, 1, options.turns, next(numbers)))
            in_order.append(
                statistics.median(
                    _one_after_the_other(stack, next(numbers)) for _ in range(options.turns)
                )
            )
            before = stack.processor_seconds()
            together.append(_calls(stack, options.at_once, options.turns, next(numbers)))
            for name, seconds in stack.processor_seconds().items():
                used[name] = used.get(name, 0) + seconds - before[name]
            say(
                f"one call {_median(alone[-1]):,.0f} ms, {options.at_once} at once"
                f" {_median(together[-1]):,.0f} ms, the vendors {in_order[-1]:,.0f} ms"
            )
    answers = options.rounds * options.turns * options.at_once
    each = ", ".join(f"{name} {1000 * seconds / answers:.0f}" for name, seconds in used.items())
    return [
        Result(
            "first sound, one call",
            [_median(waits) / asked for waits, asked in zip(alone, in_order, strict=True)],
            against="the same vendors one after the other",
            details=f"{statistics.median(map(_median, alone)):,.0f} ms, "
            f"{statistics.median(in_order):,.0f} ms",
        ),
        Result(
            f"first sound, {options.at_once} calls at once",
            [_median(many) / _median(one) for many, one in zip(together, alone, strict=True)],
            against="one call",
            details=f"ms of processor time for an answer: {each}",
        ),
        *(
            Result(
                f"more than the vendors take, {name}",
                [statistics.median(w - _vendors_ms(text) for w, text in waits) for waits in rounds],
                unit="ms",
            )
            for name, rounds in (("one call", alone), (f"{options.at_once} at once", together))
        ),
    ]


def main() -> None:
    """Run the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=20)
    results.run(parser, measure, quick={"rounds": 1, "turns": 1})


if __name__ == "__main__":
    main()

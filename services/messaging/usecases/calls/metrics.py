"""What calls count and measure."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from services.messaging.domain.call import TurnState, TurnTimings

_BUCKETS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0)


class CallMetrics:
    """Counters and histograms of one process, with nothing of any caller in a label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._stages = Histogram(
            "switchboard_call_stage_seconds",
            "Stages of a turn: fetch, transcribe, first_sentence and first_audio, each from the "
            "end of the one before, and gap, from the recording's webhook to the first audio.",
            ["stage"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._turns = Counter(
            "switchboard_call_turns_total",
            "Turns by what became of them: done, silent, failed or canceled.",
            ["outcome"],
            registry=registry,
        )
        self._fillers = Counter(
            "switchboard_call_fillers_total",
            "Fillers played because an answer wasn't ready in time.",
            registry=registry,
        )
        self._fallbacks = Counter(
            "switchboard_call_fallbacks_total",
            "Second choices: say (the provider speaks a sentence), voicemail (the caller is asked "
            "to leave a message because there is no answer).",
            ["fallback"],
            registry=registry,
        )
        for outcome in TurnState:
            if outcome.is_final:
                self._turns.labels(outcome)
        for fallback in ("say", "voicemail"):
            self._fallbacks.labels(fallback)

    def turn(self, state: TurnState, timings: TurnTimings) -> None:
        """Count a turn that has ended, with the stages it reached."""
        self._turns.labels(state).inc()
        stages = {
            "fetch": timings.fetch,
            "transcribe": timings.transcribe,
            "first_sentence": timings.first_sentence,
            "first_audio": timings.first_audio,
            "gap": timings.gap,
        }
        for stage, took in stages.items():
            if took is not None:
                self._stages.labels(stage).observe(took.total_seconds())

    def filler(self) -> None:
        """Count a filler."""
        self._fillers.inc()

    def said(self) -> None:
        """Count a sentence that the provider has to speak."""
        self._fallbacks.labels("say").inc()

    def voicemail(self) -> None:
        """Count a caller who was asked to leave a message for want of an answer."""
        self._fallbacks.labels("voicemail").inc()

"""What the pretend caller does."""

import base64
import binascii
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from sandbox.message_form import E164
from sandbox.phone.speaking import spoken_seconds
from sandbox.phone.wav import NotWavError, samples_of


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _wav(value: str) -> str:
    try:
        samples_of(base64.b64decode(value, validate=True))
    except (binascii.Error, NotWavError) as error:
        raise ValueError(f"must be a WAV file in base64: {error}") from None
    return value


class Turn(_Strict):
    """What the caller does when it is their turn: nothing, unless told otherwise."""

    text: str = Field("", max_length=10_000, description="They say this.")
    wav: Annotated[str, AfterValidator(_wav)] | None = Field(
        None, description="They say what is in this file: WAV, 16-bit PCM, in base64."
    )
    digits: str = Field("", pattern=r"^[0-9*#]*$", description="Keys they press afterwards.")
    hang_up: bool = Field(False, description="They hang up afterwards.")

    @model_validator(mode="after")
    def _one_voice(self) -> Self:
        if self.text and self.wav:
            raise ValueError("text: not together with wav")
        return self

    @property
    def speaks(self) -> bool:
        """Whether anything is to be heard."""
        return bool(self.text.strip() or self.wav)

    def samples(self) -> bytes | None:
        """The file's samples; None when the words are pretended."""
        return samples_of(base64.b64decode(self.wav)) if self.wav else None

    def seconds(self) -> float:
        """How long they speak."""
        samples = self.samples()
        if samples is not None:
            return len(samples) / 16000
        return spoken_seconds(self.text) if self.speaks else 0.0


class HangUp(_Strict):
    """When the caller loses patience, if not at the end."""

    after_seconds: float | None = Field(None, ge=0, description="Since the call was answered.")
    playing: int | None = Field(
        None, ge=0, description="In the middle of the answer to this turn; 0 is the greeting."
    )
    waiting: int | None = Field(None, ge=0, description="Before the answer to this turn comes.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [self.after_seconds, self.playing, self.waiting]
        if sum(value is not None for value in given) != 1:
            raise ValueError("exactly one of after_seconds, playing and waiting")
        return self


class Scenario(_Strict):
    """A call to our number."""

    caller: str = Field("+972501234567", pattern=f"^({E164}|anonymous|unavailable)$")
    forwarded_from: str | None = Field(None, pattern=f"^{E164}$")
    turns: list[Turn] = Field([], max_length=100)
    stays: bool = Field(False, description="Keeps silent after the last turn; else hangs up then.")
    hang_up: HangUp | None = None
    person: Literal["answers", "no-answer", "busy"] = Field(
        "answers", description="What whoever is dialled for the caller does."
    )
    speed: float = Field(
        1, ge=1, le=10_000, description="How much faster than real what is heard and said goes by."
    )

"""What is said of settings of speech vendors that can't work."""

import json

import pytest

from services.common.settings import ConfigurationError
from services.messaging.speech_settings import SpeechSettings, voice_names

ACCOUNT = {
    "type": "service_account",
    "client_email": "speech@example.iam.gserviceaccount.com",
    "private_key": "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n",
    "token_uri": "https://oauth2.googleapis.com/token",
}


def test_nothing_has_to_be_set() -> None:
    """Without any vendor the service starts, and the telephone provider speaks."""
    settings = SpeechSettings.load({})
    assert settings.google_tts_sa_json is None
    assert voice_names(settings.google_tts_voices) == {}


def test_a_whole_service_account_is_taken() -> None:
    """What Google's console gives is accepted on one line."""
    settings = SpeechSettings.load({"GOOGLE_TTS_SA_JSON": json.dumps(ACCOUNT)})
    assert settings.google_tts_sa_json is not None
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("/path/to/key.json", "must be the service account's JSON"),
        ('{"type": "service_account", "private_key": "secret', "must be the service account's"),
        ("[]", "type: service_account"),
        (json.dumps({**ACCOUNT, "type": "authorized_user"}), "type: service_account"),
        (json.dumps({**ACCOUNT, "client_email": None}), "client_email is missing"),
        (json.dumps({**ACCOUNT, "private_key": "secret"}), "private key"),
        (json.dumps({**ACCOUNT, "token_uri": "http://example.com/token"}), "token_uri must begin"),
    ],
)
def test_a_service_account_that_can_t_work(value: str, problem: str) -> None:
    """The report says what is wrong with it, without a word of it."""
    with pytest.raises(ConfigurationError) as caught:
        SpeechSettings.load({"GOOGLE_TTS_SA_JSON": value})
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", ["he-IL", "he-IL=", "xx-XX=voice", "he-IL=a,=b"])
def test_voices_that_can_t_be_read(value: str) -> None:
    """A voice needs a language that is spoken here."""
    with pytest.raises(ConfigurationError, match="GOOGLE_TTS_VOICES: must be pairs"):
        SpeechSettings.load({"GOOGLE_TTS_VOICES": value})


def test_voices() -> None:
    """Several voices may be named, with spaces between."""
    given = "he-IL=he-IL-Wavenet-C, en-US = en-US-Neural2-F"
    settings = SpeechSettings.load({"GOOGLE_TTS_VOICES": given})
    found = voice_names(settings.google_tts_voices)
    assert found == {"he-IL": "he-IL-Wavenet-C", "en-US": "en-US-Neural2-F"}


@pytest.mark.parametrize("name", ["GOOGLE_TTS_API_BASE_URL", "OPENAI_SPEECH_BASE_URL"])
def test_credentials_go_nowhere_in_the_clear(name: str) -> None:
    """Servers elsewhere are reached by https; one on this machine may do without."""
    SpeechSettings.load({name: "http://127.0.0.1:8090"})
    with pytest.raises(ConfigurationError, match="https"):
        SpeechSettings.load({name: "http://example.com"})

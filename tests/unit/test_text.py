from hypothesis import given
from hypothesis import strategies as st

from services.messaging.domain.text import shortened


@given(st.text(max_size=400), st.integers(2, 200))
def test_never_longer_than_the_limit(text: str, limit: int) -> None:
    """Whatever the text, the result fits, and short text is left alone."""
    result = shortened(text, limit)
    assert len(result) <= limit
    assert result == text or len(text) > limit


def test_cut_after_a_sentence() -> None:
    """A long text ends where a sentence does, and says that it was cut."""
    assert shortened("It is free. " + "Come and see it " * 10, 20) == "It is free.…"


def test_cut_after_a_word() -> None:
    """Without a sentence's end, no word is cut in two."""
    assert shortened("wonderful apartments everywhere", 24) == "wonderful apartments…"

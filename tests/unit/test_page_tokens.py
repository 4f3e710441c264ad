import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidInputError
from services.messaging.grpc_api.page_tokens import decode_page_token, encode_page_token


@given(st.integers(0, 2**63 - 1), st.text())
def test_a_token_gives_back_its_position(position: int, question: str) -> None:
    """A token leads to the place it was made for."""
    assert decode_page_token(encode_page_token(position, question), question) == position


def test_no_token_is_the_first_page() -> None:
    """An empty token asks for the first page."""
    assert decode_page_token("", "anything") is None


def test_a_token_belongs_to_its_question() -> None:
    """A token can't be carried over to another filter."""
    with pytest.raises(InvalidInputError, match="other filters"):
        decode_page_token(encode_page_token(7, "+15550000001"), "+15550000002")


@given(
    st.text(min_size=1)
    | st.binary(min_size=1, max_size=40).map(lambda raw: base64.urlsafe_b64encode(raw).decode())
)
def test_any_other_text_is_refused(text: str) -> None:
    """Whatever a caller makes up is refused with the field's name, never an internal error."""
    with pytest.raises(InvalidInputError, match="page_token"):
        decode_page_token(text)

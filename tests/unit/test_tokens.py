import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidInputError
from services.messaging.grpc_api.tokens import (
    decode_cursor,
    decode_page_token,
    encode_cursor,
    encode_page_token,
)

ROW_IDS = st.integers(0, 2**63 - 1)
TIME = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


@given(st.datetimes(timezones=st.just(UTC)), ROW_IDS, st.text())
def test_a_token_gives_back_its_position(time: datetime, row_id: int, question: str) -> None:
    """A token leads to the place it was made for, to the microsecond."""
    token = encode_page_token((time, row_id), question)
    assert decode_page_token(token, question) == (time, row_id)


@given(ROW_IDS, ROW_IDS)
def test_a_cursor_gives_back_its_position(transaction_id: int, row_id: int) -> None:
    """A cursor leads to the place it was made for."""
    assert decode_cursor(encode_cursor((transaction_id, row_id))) == (transaction_id, row_id)


def test_no_token_is_the_first_page() -> None:
    """An empty token asks for the first page, an empty cursor for now."""
    assert decode_page_token("", "anything") is None
    assert decode_cursor("") is None


def test_a_token_belongs_to_its_question() -> None:
    """A token can't be carried over to another filter, or taken for a cursor."""
    token = encode_page_token((TIME, 7), "+15550000001")
    with pytest.raises(InvalidInputError, match="page_token"):
        decode_page_token(token, "+15550000002")
    with pytest.raises(InvalidInputError, match="cursor"):
        decode_cursor(token)


@given(
    st.text(min_size=1)
    | st.binary(min_size=1, max_size=40).map(lambda raw: base64.urlsafe_b64encode(raw).decode())
)
def test_any_other_text_is_refused(text: str) -> None:
    """Whatever a caller makes up is refused with the field's name, never an internal error."""
    with pytest.raises(InvalidInputError, match="page_token"):
        decode_page_token(text)
    with pytest.raises(InvalidInputError, match="cursor"):
        decode_cursor(text)

"""Sentences, cut while the text is still being written."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.messaging.domain.sentences import SentenceCutter

LONG_CLAUSES = (
    "Of course, I would be glad to look that up for you in our list of apartments right away, "
    "because we have several in that street that may suit you"
)


def cut(*pieces: str) -> list[str]:
    """The sentences of a text that comes in pieces."""
    cutter = SentenceCutter()
    found = [sentence for piece in pieces for sentence in cutter.feed(piece)]
    return [*found, *cutter.flush()]


def bare(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Yes. We open at nine! When will you come?", 3),
        ("שלום. אנחנו פתוחים מתשע! מתי תגיעו?", 3),
        ("Dr. Cohen is in. Mrs. Levi isn't.", 2),
        ('ד"ר כהן נמצא. עו"ד לוי לא.', 2),
        ("It costs 3.5 million. That is a lot.", 2),
        ("At 10.30 or at 9:15, as you like. Bye.", 2),
        ("See www.example.com/a.b?c=d. It has pictures.", 2),
        ("See example.com for more. Or call.", 2),
        ("We are open until 5 p.m. on Fridays. And on Sundays.", 2),
        ("We close at 5 p.m. Come early.", 2),
        ("The U.S. office is closed. Sorry.", 2),
        ("Well... maybe not. Let me see…", 2),
        ("Let me see… The second one.", 2),
        ('"Is it free?" "Yes, it is." Good.', 3),
        ("(It is on the third floor.) There is a lift.", 2),
        ("No. I don't think so.", 2),
        ("It is apartment no. 7 there. Yes.", 2),
        ("1. Turn left.\n2. Go up.\n3. Ring.", 3),
        ("Two things:\n- the key\n- the door", 3),
        ("That was in 2024. Now it is sold.", 2),
        ("Ask J. Smith. He knows.", 2),
        ("Really?! Yes!!! Fine.", 3),
        ("One\n\nTwo\r\nThree", 3),
        ("好。再见。", 2),
        ("--- ... !!!", 0),
        ("- Hello. --- There.", 2),
        ("", 0),
    ],
)
def test_where_sentences_end(text: str, sentences: int) -> None:
    """Stops end sentences in English and Hebrew, save those of abbreviations, numbers and names."""
    assert len(cut(text)) == sentences, cut(text)


def test_sentences_come_while_the_text_is_written() -> None:
    """A sentence is there as soon as the next one begins."""
    cutter = SentenceCutter()
    assert cutter.feed("Of course") == []
    assert cutter.feed(". ") == []
    assert cutter.feed("We") == ["Of course."]
    assert cutter.feed(" open at nine. ") == []
    assert cutter.flush() == ["We open at nine."]
    assert cutter.flush() == []


def test_a_long_first_sentence_is_cut_at_a_clause() -> None:
    """The caller hears the first clauses while the rest is being written; later ones stay whole."""
    cutter = SentenceCutter()
    [early] = cutter.feed(LONG_CLAUSES)
    assert early == LONG_CLAUSES[: LONG_CLAUSES.index(" because")]
    later = cut("Yes. " + LONG_CLAUSES + ".")
    assert later == ["Yes.", LONG_CLAUSES + "."]


def test_nothing_gets_too_long_for_the_vendors() -> None:
    """Text without any stop, or without any space, is cut all the same: below 5000 bytes."""
    for text in ("word " * 2000, "מילה " * 2000, "x" * 9000, "好" * 9000, "a," * 4000):
        pieces = cut(text)
        assert max(len(piece.encode()) for piece in pieces) < 5000
        assert bare("".join(pieces)) == bare(text)


_BITS = [*"aB1אב .,;:!?…\n\"'()-", "Dr. ", "p.m. ", "3.5", " https://a.bc/d. ", "1. ", "word "]
any_text = st.one_of(
    st.text(max_size=300), st.lists(st.sampled_from(_BITS), max_size=300).map("".join)
)


@given(text=any_text, data=st.data())
def test_no_word_is_lost_and_pieces_dont_matter(text: str, data: st.DataObject) -> None:
    """However a text comes in, the sentences are the same, and hold all its words in order."""
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=20))
    bounds = sorted({0, len(text), *places})
    pieces = [text[begin:end] for begin, end in pairwise(bounds)]
    sentences = cut(*pieces)
    assert sentences == cut(text) == cut(*text)
    letters = [one for one in text if one.isalnum()]
    assert [one for one in "".join(sentences) if one.isalnum()] == letters
    for sentence in sentences:
        assert any(one.isalnum() for one in sentence)
        assert len(sentence) <= 450
    if letters and text.rstrip()[-1].isalnum():
        assert bare("".join(sentences)) == bare(text)


def test_an_endless_row_of_stops_is_no_sentence() -> None:
    """A model that has gone astray costs no vendor's call."""
    assert cut("." * 20_000) == []
    assert cut(*("!" for _ in range(5_000))) == []


def test_marks_of_direction_do_not_keep_sentences_together() -> None:
    """Text that goes both ways is marked, often right after a stop; nobody hears that."""
    cutter = SentenceCutter()
    text = "הדירה פנויה.\u200f ב-\u202aWhatsApp\u202c?\u200f \u202bנהדר.\u202c"
    pieces = [*cutter.feed(text), *cutter.flush()]
    assert pieces == ["הדירה פנויה.", "ב-WhatsApp?", "נהדר."]

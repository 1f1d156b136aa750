"""Mailboxes are read as mail programs show them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.mail.mailboxes import MAILBOXES_MAX, mailboxes


@pytest.mark.parametrize(
    ("value", "boxes"),
    [
        ("joe@x.example", [("", "joe@x.example")]),
        ("Joe <joe@x.example>", [("Joe", "joe@x.example")]),
        ('"Doe, Joe" <joe@x.example>, k@y', [("Doe, Joe", "joe@x.example"), ("", "k@y")]),
        ('"a\\"b <c@d>" <joe@x>', [('a"b <c@d>', "joe@x")]),
        ("joe@x (Joe (the) Doe)", [("Joe (the) Doe", "joe@x")]),
        ("A <a@b> <joe@x>", [("A <a@b>", "joe@x")]),
        ("Friends: a@b, <c@d>;", [("", "a@b"), ("", "c@d")]),
        ('"Joe <joe@x>', [('"Joe', "joe@x")]),
        ("Joe <joe@x", [("Joe", "joe@x")]),
        ("", []), (",,", []), ("Joe", [("", "Joe")]),
    ],
)  # fmt: skip
def test_mailboxes(value, boxes):
    """Quotes, comments, groups; and what is wrong, as well as it can be."""
    assert [(box.name, box.address) for box in mailboxes(value)] == boxes


def test_mailboxes_are_bounded():
    """A field of thousands has a hundred."""
    assert len(mailboxes("a@b," * 1000)) == MAILBOXES_MAX


@given(st.text(st.sampled_from('ab@<>"(),;:\\ .'), max_size=60) | st.text(max_size=60))
def test_any_value(value):
    """Nothing raises; no more is shown than there is."""
    for box in mailboxes(value):
        assert len(box.address) <= len(value)

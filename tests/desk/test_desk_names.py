"""Names are checked once, and written the one way that the mail path writes them."""

import pytest

from postweir.desk import names
from postweir.desk.ports import Misused


def test_a_sender_is_found_however_it_was_typed():
    """Attribution writes identities in lower case: a key with capitals would match nobody."""
    assert (
        names.sender_key("acme|x-authuser|Joe@Shop.Example") == "acme|x-authuser|joe@shop.example"
    )


@pytest.mark.parametrize(
    "text", ["", "acme", "acme|sasl", "acme|sasl|", "acme|mail|joe", "A|sasl|x"]
)
def test_what_names_no_sender(text):
    """It is said, not searched for."""
    with pytest.raises(Misused):
        names.sender_key(text)

"""A page is read as a person sees it, in one pass, whatever the bytes are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.scan.page import ANCHORS_MAX, HTML_BYTES_MAX, Reader, attribute, unescaped

READER = Reader()


def shown(html: bytes) -> str:
    return " ".join(READER.read(html).text.decode("latin-1").split())


@pytest.mark.parametrize(
    ("html", "text"),
    [
        (b"<p>One</p><p>two <b>th</b>ree</p>", "One two three"),
        (b"<TITLE>no</TITLE><STYLE>p { x: y }</STYLE><P>yes", "yes"),
        (b"a<script>if (1<2) { x('</b>') }</script >b", "ab"),
        (b"a<!-- <p>no</p> -->b<!--->c", "ab"),
        (b"1 < 2 and 3 > 2, a<b", "1 < 2 and 3 > 2, a"),
        (b'<a title="x > y" href=z>link</a>', "link"),
        (b"<td>a</td><td>b</td>c<br/>d<BR>e", "a b c d e"),
        (b"<!DOCTYPE html>x<?php y ?>z", "x z"),
        (b"<noscript>seen</noscript>", "seen"),
    ],
)
def test_what_a_reader_sees(html, text):
    """Tags, comments, scripts and styles are no text; an element of its own ends a word."""
    assert shown(html) == text


@pytest.mark.parametrize(
    "style",
    [
        b'style="display:none"', b"style='display : none'", b'STYLE="Display: NONE !important"',
        b'style="color:red;visibility:hidden"', b'style="font-size:0"', b'style="font-size: 0px;"',
        b'style="font-size:1pt"', b'style="font-size:.01em"', b'style="opacity:0"',
        b'style="max-height:0px;overflow:hidden"', b'style="color:#fff;background:#fff"', b"hidden",
    ],
)  # fmt: skip
def test_hidden_text(style):
    """What nobody sees is counted, and is not in the text; what stands behind it is."""
    page = READER.read(b"<p>a</p><DIV " + style + b"><div>se</div> cret<br></DIV><p>b</p>")

    assert page.text.split() == [b"a", b"b"]
    assert page.hidden_bytes == 6
    assert page.hidden_runs == 2


@pytest.mark.parametrize(
    "style",
    [
        b'style="display:block"', b'style="font-size:10px"', b'style="font-size:0.9em"',
        b'style="font-size:100%"', b'style="opacity:0.8"', b'class="hidden"', b"type=hidden",
        b'style="background:#3869D4;color:#fff"',
    ],
)  # fmt: skip
def test_text_that_is_seen(style):
    """Small, pale and lettered like hidden text, and still there to read."""
    page = READER.read(b"<p " + style + b">plain</p>")

    assert page.text.split() == [b"plain"]
    assert page.hidden_bytes == 0


def test_white_text():
    """On a page that sets no background white text is hidden; on one that does, who knows."""
    white = b'<font color="#FFFFFF">words</font> <span style="color: white">more</span>'

    assert READER.read(white).hidden_bytes == 9
    assert READER.read(white).text.split() == [b"words", b"more"]
    assert READER.read(b"<table bgcolor=navy><td>" + white).hidden_bytes == 0


def test_pictures_and_forms():
    """A picture of one dot only counts its readers."""
    page = READER.read(b'<img src=a><IMG src="b" width="600"><img width=1 height=1 src=c>')

    assert page.images == 2
    assert not page.form
    asking = (b"<form action=x>", b"<INPUT name=a>", b"<a href=' javascript:x()'>", b"<script>",
              b"<body onload=go()>", b'<img src=x onerror = "y">')  # fmt: skip
    assert all(READER.read(html).form for html in asking)
    assert not READER.read(b"<p>the form on = line, and an onion=one</p>").form


def test_anchors():
    """Where each leads, and the text it shows; one that is not closed ends at the next."""
    page = READER.read(
        b"<a href='http://x.example/a?b'>www.<b>y</b>.example</a> no <a HREF=z>one<a data-href=q>2"
    )

    assert page.anchors == (
        (b"http://x.example/a?b", b"www.y.example"), (b"z", b"one"), (b"", b"2"),
    )  # fmt: skip
    assert len(READER.read(b"<a href=x>" * 2000).anchors) == ANCHORS_MAX


def test_attributes():
    """Quoted or not, in any case, and no other that ends like it."""
    assert attribute(b'a href="x y"', b"href") == b"x y"
    assert attribute(b"a HREF = x y", b"href") == b"x"
    assert attribute(b"a data-href=1 href=2", b"href") == b"2"
    assert attribute(b"a href", b"href") == attribute(b"a href=", b"href") == b""


def test_references():
    """As browsers take them, and nothing else."""
    assert unescaped("a&amp;b&lt;c&#65;&#x42;&#x43 d") == "a&b<cABC d"
    assert unescaped("&nonsense; &copy &; & &#; &#x; &#99999999999;") == (
        "&nonsense; &copy &; & &#; &#x; \ufffd999;"
    )
    assert unescaped("&#xD800;&#0;") == "\ufffd\ufffd"


@given(st.binary(max_size=400))
def test_any_page(html):
    """Nothing raises, and what is counted is not more than there is."""
    page = READER.read(html)

    assert len(page.text) <= 2 * len(html) + 1
    assert 0 <= page.hidden_bytes <= len(html)
    unescaped(html.decode("latin-1"))


_PIECE = st.sampled_from(
    [b"<", b">", b"a", b"/a", b"<p>", b"</p>", b"<div style='display:none'>", b"</div>", b"<!--",
     b"-->", b"<script>", b"</script>", b'"', b"'", b"&#", b"<a href=x>", b"<font color=white>",
     b"</font>", b"<IMG ", b" hidden>", b"text"]
)  # fmt: skip


@given(st.lists(_PIECE, max_size=60).map(b"".join))
def test_any_pieces(html):
    """Pages that are nearly ones."""
    page = READER.read(html)

    assert len(page.text) + page.hidden_bytes <= 2 * len(html) + 1


def test_a_large_page_is_read_up_to_its_bound():
    """What is behind it nobody reads."""
    page = READER.read(b"x" * HTML_BYTES_MAX + b"behind")

    assert page.text == b"x" * HTML_BYTES_MAX

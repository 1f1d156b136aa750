"""One message's header and MIME parts, read lazily and within bounds, whatever the bytes are.

Rules of this file:

* Any bytes give a `Message`; nothing raises. What could not be read is an *anomaly*, a word in
  `Message.anomalies` that rules can look at, and `Message.data` is there for a raw look.
* The quick parser (Rust, fast_mail_parser) reads first. Where it fails, warns or finds a
  multipart without parts, the standard library reads again, which decodes what it can.
* Both have inputs that cost them far more than their length: those are told beforehand (`cost`)
  and stay one opaque part. The quick one also copies an embedded message at each level (4 MiB
  nested 200 times became 1.3 GB), so embedded ones are opened here, one by one, out of one budget.
* No step holds the interpreter for long: the judge looks at large messages in threads, and its
  loop has to answer others meanwhile.
"""

import binascii
import codecs
import email
import email.message
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import fast_mail_parser

from postweir.mail import cost
from postweir.mail.headers import Field, fields, header_end

HEADER_BYTES_MAX = 4 * 1024 * 1024  # as much as the edge can be set to take
DEPTH_MAX = 20  # containers in containers; real mail has four or five
PARTS_MAX = 1000  # one message's; a digest of a busy list has a few hundred
DECODED_BYTES_MAX = (
    16 * 1024 * 1024
)  # of all parts of a message: what we look into, not what passes
FILENAME_CHARS_MAX = 255  # what file systems hold
FALLBACK_BYTES_MAX = 256 * 1024  # the standard parser reads the first of it
TRANSCODED_BYTES_MAX = 1024 * 1024  # of a message; where all is wrong that takes 150 ms
TRANSCODED_AT_ONCE = 32 * 1024

_EMBEDDED = b"message/rfc822"
_MASK = b"message/x-kept"  # as long, and known to nobody: the parsers leave it closed
# Charsets in which ASCII is not ASCII (?: le or be); never a codec by a foreign name.
_TRANSCODED = {
    "utf-16": "utf-16-?", "utf16": "utf-16-?", "utf-16le": "utf-16-le", "utf-16be": "utf-16-be",
    "utf-7": "utf-7", "utf7": "utf-7", "unicode-1-1-utf-7": "utf-7", "utf-32": "utf-32-?",
    "utf-32le": "utf-32-le", "utf-32be": "utf-32-be",
}  # fmt: skip


class _Node(Protocol):
    """One part as a parser gives it."""

    content_type: str
    disposition: str
    filename: str
    type_field: str  # the whole Content-Type value
    encoding: str
    container: bool
    size: int  # bytes before decoding

    def content(self) -> bytes: ...


class Part:
    """One leaf or container of the tree; `payload` decodes when it is first asked for."""

    __slots__ = (
        "_content", "_payload", "_reading", "_text", "charset", "container", "content_type",
        "depth", "disposition", "encoding", "filename", "names", "size",
    )  # fmt: skip

    def __init__(self, reading: "Reading", node: _Node, depth: int) -> None:
        self._reading, self._content = reading, node.content
        self._payload: bytes | None = None
        self._text: bytes | None = None
        self.depth = depth
        self.content_type = node.content_type
        self.disposition = node.disposition
        self.encoding = node.encoding
        self.container = node.container
        self.size = node.size
        self.charset = parameter(node.type_field, "charset").lower()
        self.filename = node.filename[:FILENAME_CHARS_MAX]
        other = parameter(node.type_field, "name")[:FILENAME_CHARS_MAX]
        self.names = tuple(dict.fromkeys(filter(None, (self.filename, other))))

    @property
    def payload(self) -> bytes:
        """The decoded bytes; b"" for a container, and where the message's budget is spent."""
        if self._payload is None:
            self._payload = b"" if self.container else self._reading.decode(self)
        return self._payload

    @property
    def text(self) -> bytes:
        """The decoded bytes such that ASCII in them reads as ASCII."""
        if self._text is None:
            codec = _TRANSCODED.get(self.charset)
            self._text = self._reading.transcode(self.payload, codec) if codec else self.payload
        return self._text

    def raw(self) -> bytes:
        """Decode anew, outside of the budget; for `Reading.decode` alone."""
        return self._content()


class Reading:
    """How far the parts of one message may still be decoded, and what was odd about them.

    They have this in common and not the message, which has them: no circle, so what is done with
    a message is gone at once, and the garbage collector has nothing to look for.
    """

    __slots__ = ("_anomalies", "_budget", "_transcodes")

    def __init__(self) -> None:
        self._budget, self._transcodes = DECODED_BYTES_MAX, TRANSCODED_BYTES_MAX
        self._anomalies: dict[str, None] = {}

    @property
    def anomalies(self) -> tuple[str, ...]:
        """What was noted so far."""
        return tuple(self._anomalies)

    def note(self, anomaly: str) -> None:
        """Remember that something is odd."""
        self._anomalies[anomaly] = None

    def decode(self, part: Part) -> bytes:
        """Return a part's bytes out of the budget, or b"" when it is spent."""
        if part.size > self._budget:
            self.note("cut")
            return b""
        content = part.raw()[: self._budget]
        self._budget -= max(part.size, len(content))
        return content

    def transcode(self, content: bytes, codec: str) -> bytes:
        """Return text of a wide charset as UTF-8, in steps: a fault in each byte makes it slow."""
        taken = content[: self._transcodes]
        if len(taken) < len(content):
            self.note("cut")
        self._transcodes -= len(taken)
        # Which byte comes first the text itself says, by its mark or by its first ASCII.
        order = "be" if taken[:1] in (b"\xfe", b"\0") else "le"
        decoder = codecs.getincrementaldecoder(codec.replace("?", order))("replace")
        steps = range(0, len(taken), TRANSCODED_AT_ONCE)
        texts = (decoder.decode(taken[at : at + TRANSCODED_AT_ONCE]) for at in steps)
        return b"".join(text.encode("utf-8", "replace") for text in texts)


class Message:
    """A message as scanners and facts see it."""

    __slots__ = ("_reading", "data", "fields", "kept", "parts", "start")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._reading = Reading()
        self.kept: dict[str, Any] = {}  # what one scanner worked out and the next needs too
        head = data[:HEADER_BYTES_MAX]
        self.start = header_end(head)  # where the body begins
        self.fields: Sequence[Field] = fields(head[: self.start])
        self.parts: tuple[Part, ...] = tuple(_parts(self._reading, data))

    @property
    def anomalies(self) -> tuple[str, ...]:
        """What is odd so far: malformed, empty, encoding, bound (structure), cut (content)."""
        return self._reading.anomalies

    def values(self, name: str) -> list[str]:
        """Return the values of all fields of this name (lower-case)."""
        return [field.value for field in self.fields if field.name == name]


def read(data: bytes) -> Message:
    """Return the message these bytes are. Never raises."""
    return Message(data)


def parameter(value: str, name: str) -> str:
    """Return a parameter of a Content-Type or -Disposition value, "" when it has none."""
    rest = value
    for _ in range(cost.PARAMETERS_MAX):
        _, found, rest = rest.partition(";")
        if not found:
            return ""
        key, equals, after = rest.partition("=")
        if not equals or ";" in key:
            continue
        after = after.lstrip(" \t")
        if after.startswith('"'):
            text, _, rest = after[1:].partition('"')
        else:
            text = after.partition(";")[0]
        if key.strip(" \t").lower() == name:
            return text.strip(" \t")
    return ""


def _parts(reading: Reading, data: bytes) -> Iterator[Part]:
    """Yield the parts depth first, embedded messages opened, up to the bounds."""
    waiting: list[tuple[_Node, int]] = [(node, depth) for depth, node in _tree(reading, data)]
    waiting.reverse()
    for _ in range(PARTS_MAX):
        if not waiting:
            return
        node, depth = waiting.pop()
        part = Part(reading, node, depth)
        yield part
        if part.content_type != _EMBEDDED.decode() or part.container:
            continue
        if depth >= DEPTH_MAX:
            reading.note("bound")
        elif part.payload:
            inner = [(n, depth + 1 + d) for d, n in _tree(reading, part.payload)]
            waiting += reversed(inner)
    if waiting:
        reading.note("bound")


def _tree(reading: Reading, data: bytes) -> list[tuple[int, _Node]]:
    """Return (depth, node) of one message, without what is embedded in it."""
    data = _masked(data)
    if cost.is_trap(data):
        reading.note("bound")
        return [(0, _Opaque(data))]
    try:
        root = fast_mail_parser.parse_email_tree(data, mode="lazy")
        nodes = list(_walk(reading, root, data))
        if not _childless(nodes):
            return nodes
        reading.note("empty")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - ParseError, and whatever a fault in Rust raises
        reading.note("malformed")
    return _second(reading, data) or [(0, _Opaque(data))]


def _walk(reading: Reading, root: Any, data: bytes) -> Iterator[tuple[int, _Node]]:
    second = _Second(reading, data)
    waiting = [(0, root)]
    for index in range(PARTS_MAX):
        if not waiting:
            return
        depth, node = waiting.pop()
        yield depth, _Quick(reading, node, second, index)
        if depth >= DEPTH_MAX and node.children:
            reading.note("bound")
            continue
        waiting += [(depth + 1, child) for child in reversed(node.children)]
    if waiting:
        reading.note("bound")


def _childless(nodes: list[tuple[int, _Node]]) -> bool:
    """True when there is a multipart without parts."""
    ends = [depth for depth, _ in nodes[1:]] + [0]
    return any(
        node.container and below <= depth for (depth, node), below in zip(nodes, ends, strict=True)
    )


def _masked(data: bytes) -> bytes:
    """Return the bytes with embedded messages named so that no parser opens them."""
    masked: bytearray | None = None
    for at in cost.places(data, _EMBEDDED):
        masked = masked or bytearray(data)
        masked[at : at + len(_MASK)] = _MASK
    return data if masked is None else bytes(masked)


class _Quick:
    """A node of the quick parser."""

    __slots__ = (
        "_index", "_node", "_reading", "_second", "container", "content_type", "disposition",
        "encoding", "filename", "size", "type_field",
    )  # fmt: skip

    def __init__(self, reading: Reading, node: Any, second: "_Second", index: int) -> None:
        self._reading, self._node, self._second, self._index = reading, node, second, index
        self.content_type = _unmasked(node.content_type)
        self.disposition = (node.disposition or "").lower()
        self.filename = node.filename or ""
        self.container = node.encoded_size is None
        self.size = node.encoded_size or 0
        self.type_field, self.encoding = "", ""
        for name, values in node.headers.items():
            if len(name) == 12 and name.lower() == "content-type":
                self.type_field = values[0]
            elif len(name) == 25 and name.lower() == "content-transfer-encoding":
                self.encoding = values[0].strip().lower()

    def content(self) -> bytes:
        try:
            return self._node.content or b""
        except fast_mail_parser.ParseError:
            self._reading.note("encoding")
            return self._second.content(self._index)


class _Standard:
    """A node of the standard library's parser."""

    def __init__(self, node: email.message.Message) -> None:
        self._node = node
        self.type_field = str(node.get("content-type", "text/plain"))
        self.content_type = _unmasked(node.get_content_type())
        disposition = str(node.get("content-disposition", ""))
        self.disposition = disposition.partition(";")[0].strip().lower()
        self.filename = parameter(disposition, "filename") or parameter(self.type_field, "name")
        self.encoding = str(node.get("content-transfer-encoding", "")).strip().lower()
        self.container = node.is_multipart()
        self.size = 0 if self.container else len(node.get_payload() or "")

    def content(self) -> bytes:
        try:
            found = self._node.get_payload(decode=True)
        except (ValueError, LookupError, binascii.Error):
            return b""
        return found if isinstance(found, bytes) else b""


class _Opaque:
    """Bytes whose structure nobody could read: one part, as it stands."""

    content_type, disposition, filename, encoding = "application/octet-stream", "", "", ""
    type_field, container = "", False

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def content(self) -> bytes:
        return self._data


class _Second:
    """The standard library's reading of the same bytes, made when a part of it is needed."""

    def __init__(self, reading: Reading, data: bytes) -> None:
        self._reading, self._data = reading, data
        self._nodes: list[tuple[int, _Node]] | None = None

    def content(self, index: int) -> bytes:
        if self._nodes is None:
            self._nodes = _second(self._reading, self._data)
        return self._nodes[index][1].content() if index < len(self._nodes) else b""


def _second(reading: Reading, data: bytes) -> list[tuple[int, _Node]]:
    """Return what the standard library reads, [] where that could cost too much."""
    if len(data) > FALLBACK_BYTES_MAX:
        reading.note("cut")
        data = data[:FALLBACK_BYTES_MAX]
    if cost.is_trap_for_standard(data):
        reading.note("bound")
        return []
    try:
        root = email.message_from_bytes(data)
        nodes: list[tuple[int, _Node]] = []
        waiting: list[tuple[int, email.message.Message]] = [(0, root)]
        while waiting and len(nodes) < PARTS_MAX:
            depth, node = waiting.pop()
            nodes.append((depth, _Standard(node)))
            children = node.get_payload()
            if isinstance(children, list) and depth < DEPTH_MAX:
                waiting += [
                    (depth + 1, c)
                    for c in reversed(children)
                    if isinstance(c, email.message.Message)
                ]
    except Exception:  # noqa: BLE001 - hostile bytes meet faults of any kind in there
        reading.note("bound")
        return []
    return nodes


def _unmasked(content_type: str) -> str:
    text = content_type.lower()
    return _EMBEDDED.decode() if text == _MASK.decode() else text

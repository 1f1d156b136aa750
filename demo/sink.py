"""The world, played on one loopback port: remote sites that accept, greylist, refuse or are down.

Built on the product's own half of SMTP. What a site does stands in the recipient's domain and
local part: `grey.…` domains refuse each recipient's first try, `dead@` is refused for good.
"""

import asyncio
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from postweir.mail.reply import RemoteFault, Reply
from postweir.mail.smtp_server import (
    Body,
    BodyEnd,
    Data,
    Greet,
    Mail,
    Misstep,
    Offers,
    Quit,
    Rcpt,
    Reset,
    ServerSession,
    State,
)


@dataclass(frozen=True, slots=True)
class Received:
    """One message as it arrived."""

    mail_from: str
    recipients: tuple[str, ...]
    content: bytes

    @property
    def body_hash(self) -> str:
        """The hash of what stands after the header."""
        return hashlib.sha256(self.content.partition(b"\r\n\r\n")[2]).hexdigest()


@dataclass(slots=True)
class World:
    """What has arrived, and what was tried before."""

    tell: Callable[[str], None] = lambda _: None
    arrived: list[Received] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)
    pause_s: float = 0.0  # before each answer to a message

    def recipient(self, address: str) -> Reply:
        """Answer one RCPT as that site would."""
        local, _, domain = address.rpartition("@")
        if local == "dead":
            self.tell(f"{domain} refuses {address} for good")
            return Reply(550, "5.1.1", "No such user here")
        if domain.startswith("grey.") and address not in self.tried:
            self.tried.add(address)
            self.tell(f"{domain} greylists {address}")
            return Reply(450, "4.7.1", "Greylisted, come back later")
        return Reply(250, "2.1.5", "Recipient ok")

    def message(self, received: Received) -> Reply:
        """Take one message."""
        self.arrived.append(received)
        what = "" if received.mail_from else "the bounce "
        first, *more = received.recipients
        others = f" and {len(more)} more" if more else ""
        self.tell(f"{first.rpartition('@')[2]} accepts {what}for {first}{others}")
        return Reply(250, "2.0.0", f"Taken as {len(self.arrived)}")


class Site(asyncio.Protocol):
    """One connection to the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._session = ServerSession(Offers("mx.example", 100 * 1024 * 1024))
        self._forget()

    def _forget(self) -> None:
        self._from, self._to, self._content = "", [], bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(bytes(Reply(220, "", "mx.example ESMTP")))

    def data_received(self, data: bytes) -> None:
        self._session.receive(data)
        out = bytearray()
        pause_s = 0.0
        try:
            while (event := self._session.next_event()) is not None:
                if isinstance(event, Body):
                    self._content += event.data
                    continue
                if isinstance(event, BodyEnd):
                    pause_s = self._world.pause_s
                out += self._session.reply(self._answer(event))
        except RemoteFault as fault:
            out += bytes(fault.reply)
            self._transport.write(bytes(out))
            self._transport.close()
            return
        if pause_s:
            asyncio.get_running_loop().call_later(pause_s, self._transport.write, bytes(out))
        else:
            self._transport.write(bytes(out))
        if self._session.state is State.CLOSED:
            self._transport.close()

    def _answer(self, event: object) -> Reply:
        match event:
            case Greet():
                self._forget()
                return self._session.welcome()
            case Mail(address=address):
                self._from = address
                return Reply(250, "2.1.0", "Sender ok")
            case Rcpt(address=address):
                reply = self._world.recipient(address)
                if reply.accepted:
                    self._to.append(address)
                return reply
            case Data():
                return Reply(354, "", "Go on")
            case BodyEnd():
                found = Received(self._from, tuple(self._to), bytes(self._content))
                self._forget()
                return self._world.message(found)
            case Misstep(reply=reply):
                return reply
            case Quit():
                return Reply(221, "2.0.0", "Bye")
            case Reset():
                self._forget()
                return Reply(250, "2.0.0", "Ok")
            case _:
                return Reply(250, "2.0.0", "Ok")


class Sink:
    """The world on a thread of its own; ports open and close as the story wants."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._loop = asyncio.new_event_loop()
        self._servers: dict[int, asyncio.Server] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def open(self, port: int) -> None:
        """Answer on a loopback port."""
        made = self._loop.create_server(lambda: Site(self.world), "127.0.0.1", port)
        self._servers[port] = asyncio.run_coroutine_threadsafe(made, self._loop).result(10)

    def close(self) -> None:
        """Answer no more."""
        for server in self._servers.values():
            self._loop.call_soon_threadsafe(server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

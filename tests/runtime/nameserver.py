"""A DNS server on loopback, with a zone of the test's own; it counts what it is asked."""

import asyncio
from collections import Counter

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

SILENT = object()


class Nameserver(asyncio.DatagramProtocol):
    """`zone`: (name, type) to a list of records, an rcode, or SILENT; else NXDOMAIN."""

    def __init__(self, zone, ttl_s=300):
        self.zone, self.ttl_s = zone, ttl_s
        self.asked = Counter()

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        while True:  # a port that is free for both
            self._tcp = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self.port = self._tcp.sockets[0].getsockname()[1]
            try:
                await loop.create_datagram_endpoint(
                    lambda: self, local_addr=("127.0.0.1", self.port)
                )
                break
            except OSError:
                self._tcp.close()
        self.address = f"127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_):
        self._udp.close()
        self._tcp.close()
        await asyncio.sleep(0)

    def connection_made(self, transport):
        self._udp = transport

    def datagram_received(self, data, address):
        reply = self._answer(data)
        if reply is not None:
            wire = reply.to_wire(max_size=65535)
            if len(wire) > 1232:
                reply.answer.clear()
                reply.flags |= dns.flags.TC
                wire = reply.to_wire()
            self._udp.sendto(wire, address)

    async def _accept(self, reader, writer):
        try:
            length = int.from_bytes(await reader.readexactly(2), "big")
            reply = self._answer(await reader.readexactly(length))
            if reply is not None:
                wire = reply.to_wire(max_size=65535)
                writer.write(len(wire).to_bytes(2, "big") + wire)
                await writer.drain()
        finally:
            writer.close()

    def _answer(self, data):
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind] += 1
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        found = self.zone.get((name, kind))
        if found is SILENT:
            return None
        if isinstance(found, str):
            reply.set_rcode(dns.rcode.from_text(found))
        elif found:
            for each in found:
                owner, of, text = each if isinstance(each, tuple) else (name, kind, each)
                reply.answer.append(dns.rrset.from_text(owner + ".", self.ttl_s, "IN", of, text))
        elif not any(known == name for known, _ in self.zone):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply

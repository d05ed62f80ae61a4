"""Asks a DNS server one question, as a resolver does, or as a pod that wants it to ask others too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from haneul.kernel.errors import UnavailableError

_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Answer:
    """What a server said: its code (NOERROR, NXDOMAIN, …), and the values of the type that was asked for."""

    code: str
    authoritative: bool
    values: tuple[str, ...]


async def ask(address: str, port: int, name: str, kind: str, *, recursion: bool = False) -> Answer:
    """Ask by UDP, and by TCP if the answer does not fit. Raises UnavailableError."""
    question = dns.message.make_query(name, kind)
    if not recursion:
        question.flags &= ~dns.flags.RD
    try:
        said, _ = await dns.asyncquery.udp_with_fallback(question, address, _SECONDS, port=port)
    except (dns.exception.DNSException, OSError, EOFError) as error:
        raise UnavailableError(
            f"the DNS server at {address} port {port} does not answer: {str(error) or type(error).__name__}",
            hint="are 'address' and 'port' in the provider's file right, and can this machine reach the server?",
        ) from error
    texts = [
        record.to_text()
        for found in said.answer
        if found.rdtype == dns.rdatatype.from_text(kind) and str(found.name).lower() == name
        for record in found
    ]
    values = tuple(sorted(text if kind == "TXT" else text.lower() for text in texts))
    return Answer(dns.rcode.to_text(said.rcode()), bool(said.flags & dns.flags.AA), values)

"""New inputs out of old ones, by chance that a seed repeats."""

from collections.abc import Iterator, Sequence
from random import Random

LENGTH_MAX = 8192
SCRAPS = (
    b"\r\n", b"\r", b"\n", b"\0", b".", b"\r\n.\r\n", b"\n.\n", b"\xfe", b"\xff", b" ", b"\t", b":",
    b"<", b">", b'"', b"\\", b"(", b")", b"@", b"[", b"]", b";", b"=", b"*", b"zQx", b"A" * 600,
    b"\r\n ", b"\r\n\r\n", b"250 ", b"250-", b"354 ", b"421 ", b"550 ",
)  # fmt: skip


def mutated(chance: Random, known: Sequence[bytes]) -> bytes:
    """Return one of the known inputs, changed in a few places."""
    data = bytearray(chance.choice(known))
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(data))
        match chance.randint(0, 5):
            case 0:
                data[at:at] = chance.choice(SCRAPS)
            case 1:
                del data[at : at + chance.randint(1, 20)]
            case 2:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 3:
                end = at + chance.randint(1, 60)
                data[at:at] = data[at:end] * chance.randint(1, 8)
            case 4:
                other = chance.choice(known)
                cut = chance.randint(0, len(other))
                data[at:] = other[cut:]
            case 5:
                data[at:at] = chance.randbytes(chance.randint(1, 8))
    return bytes(data[:LENGTH_MAX])


def inputs(seed: int, seeds: Sequence[bytes], count: int) -> Iterator[bytes]:
    """Yield so many changed ones, each maybe the parent of later ones."""
    chance = Random(seed)
    known = list(seeds)
    for _ in range(count):
        made = mutated(chance, known)
        known.append(made)
        if len(known) > len(seeds) + 200:
            known.pop(chance.randrange(len(seeds), len(known)))
        yield made

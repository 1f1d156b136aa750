"""Writes values as TOML: enough to write policies that a test makes up."""

import datetime
from collections.abc import Mapping


class Huge:
    """Stands for a whole number that Python refuses to print."""


def dumped(document: Mapping[str, object]) -> str:
    """Return a document; lists of tables as `[[key]]`, with `[[key.test]]` below them."""
    lines = [f"{key(k)} = {value(v)}" for k, v in document.items() if not is_tables(v)]
    for k, v in document.items():
        for table in v if is_tables(v) else []:
            lines.append(f"[[{key(k)}]]")
            lines += [f"{key(a)} = {value(b)}" for a, b in table.items() if not is_tables(b)]
            for a, b in table.items():
                for inner in b if is_tables(b) else []:
                    lines.append(f"[[{key(k)}.{key(a)}]]")
                    lines += [f"{key(c)} = {value(d)}" for c, d in inner.items()]
    return "\n".join(lines) + "\n"


def is_tables(v: object) -> bool:
    return isinstance(v, list) and bool(v) and all(isinstance(each, dict) for each in v)


def key(k: str) -> str:
    return k if k.isascii() and k.replace("_", "").isalnum() else value(k)


def value(v: object) -> str:
    match v:
        case bool():
            return str(v).lower()
        case Huge():
            return "0x" + "f" * 9000
        case int():
            return str(v)
        case float():
            return repr(v)
        case str():
            return '"' + "".join(f"\\U{ord(c):08x}" if c in '"\\' or not c.isprintable() else c
                                 for c in v) + '"'  # fmt: skip
        case datetime.date() | datetime.time():
            return v.isoformat()
        case list():
            return "[" + ", ".join(map(value, v)) + "]"
        case dict():
            return "{" + ", ".join(f"{key(a)} = {value(b)}" for a, b in v.items()) + "}"
    raise TypeError(v)

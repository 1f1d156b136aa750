"""The isolated evaluator: a process that can be killed, with nothing in it but one policy.

The judge starts it with one end of a socketpair, sends `Load` once and then `Evaluate`s, and kills
it when one evaluation takes too long. It has a bound on memory, no descriptor but the socket, and
ends with its parent. So a rule that spins, crashes or eats memory costs one worker, not the judge.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator

from cel_expr_python import cel

from postweir.policy import dialect
from postweir.policy.bundle import Bundle, from_canonical, name_of
from postweir.policy.decide import Outcome, decide
from postweir.policy.evaluation import (
    Evaluate,
    Evaluated,
    Load,
    Loaded,
    PolicyFrame,
    RuleFault,
)
from postweir.policy.facts import NEUTRAL, SCHEMA, SCHEMA_HASH, Facts
from postweir.runtime.frames import Frame, Splitter, Torn, encode
from postweir.runtime.title import set_title

MEMORY_BYTES_MAX = 256 * 1024 * 1024  # of address space; Python and the default policy take 38
FLUSH_US = 1000  # answers wait no longer for those behind them, or a healthy worker looks hung
PR_SET_PDEATHSIG = 1
_ERROR = "ERROR: <input>:"


class Engine:
    """One bundle, compiled."""

    def __init__(self, bundle: Bundle, policy: str) -> None:
        self._bundle, self._policy = bundle, policy
        types = {
            "bool": cel.Type.BOOL, "int": cel.Type.INT, "double": cel.Type.DOUBLE,
            "string": cel.Type.STRING, "list": cel.Type.List(cel.Type.STRING),
        }  # fmt: skip
        self._environment = cel.NewEnv(
            variables={name: types[fact.type] for name, fact in SCHEMA.items()}
        )
        self._conditions: list[cel.Expression] = []
        self.faults = list(self._compile())

    def evaluate(self, ask: Evaluate) -> Evaluated:
        """Return the verdict on these facts."""
        began_ns = time.monotonic_ns()
        facts: Facts = {**NEUTRAL, **ask.facts}
        activation = self._environment.Activation(facts)

        def outcome(index: int) -> Outcome:
            try:
                value = self._conditions[index].eval(activation)
            except Exception as fault:  # noqa: BLE001 - the engine raises RuntimeError, or worse
                return f"raised {fault}"
            # An error of the engine is a value too, and as a text it is truthy.
            if value.type() != cel.Type.BOOL:
                return str(value.value())
            return value.value() is True

        verdict, errors = decide(self._bundle, self._policy, outcome)
        took_us = (time.monotonic_ns() - began_ns) // 1000
        return Evaluated(ask.ask, verdict, {}, errors, took_us)

    def _compile(self) -> Iterator[RuleFault]:
        """Compile each condition, and yield what is wrong with it."""
        cost = 0
        for rule in self._bundle.rules:
            try:
                condition = self._environment.compile(rule.when)
            except Exception as fault:  # noqa: BLE001 - the engine raises RuntimeError, or worse
                yield from _compile_faults(rule.id, str(fault))
                continue
            self._conditions.append(condition)
            if condition.return_type() != cel.Type.BOOL:
                yield RuleFault(rule.id, 1, 1, "is no question: it must be true or false")
                continue
            looked = dialect.look(rule.id, rule.when, condition.serialize())
            cost += looked.cost
            yield from looked.faults
        if cost > dialect.COST_TOTAL_MAX:
            what = f"all rules may cost {cost} steps, {dialect.COST_TOTAL_MAX} are taken"
            yield RuleFault("", 1, 1, what)


def _compile_faults(rule: str, text: str) -> Iterator[RuleFault]:
    """Yield the faults in what the compiler said: `ERROR: <input>:LINE:COLUMN: what`."""
    found = False
    for line in text.splitlines():
        _, error, rest = line.partition(_ERROR)
        at_line, _, rest = rest.partition(":")
        at_column, _, what = rest.partition(":")
        if error and at_line.isdecimal() and at_column.isdecimal():
            found = True
            what = what.strip().removesuffix(" (in container '')")
            yield RuleFault(rule, int(at_line), int(at_column), what)
    if not found:
        yield RuleFault(rule, 1, 1, text.splitlines()[0] if text else "cannot be compiled")


def load(frame: Load) -> tuple[Engine | None, Loaded]:
    """Return the compiled bundle, or only what is wrong with it."""
    try:
        bundle = from_canonical(frame.bundle)
    except Torn as fault:
        return None, Loaded("", f"no bundle: {fault}")
    policy = name_of(frame.bundle)
    if bundle.schema != SCHEMA_HASH:
        return None, Loaded(policy, f"written for facts {bundle.schema}, here are {SCHEMA_HASH}")
    engine = Engine(bundle, policy)
    if engine.faults:
        first = engine.faults[0]
        return None, Loaded(policy, f"rule {first.rule}: {first.what}", engine.faults)
    return engine, Loaded(policy, None)


def serve(connection: socket.socket) -> None:
    """Answer until the other end hangs up."""
    splitter: Splitter[Frame] = Splitter(PolicyFrame)
    engine: Engine | None = None
    while data := connection.recv(256 * 1024):
        answers: list[Frame] = []
        flush_ns = time.monotonic_ns() + FLUSH_US * 1000
        for frame in splitter.feed(data):
            if isinstance(frame, Load):
                engine, loaded = load(frame)
                answers.append(loaded)
            elif isinstance(frame, Evaluate) and engine is not None:
                answers.append(engine.evaluate(frame))
            now_ns = time.monotonic_ns()
            if now_ns >= flush_ns:
                connection.sendall(encode(answers))
                answers.clear()
                flush_ns = now_ns + FLUSH_US * 1000
        if answers:
            connection.sendall(encode(answers))


def confine(descriptor: int, parent: int) -> None:
    """Give up all that an evaluator does not need, and end when the parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What a terminal or a service manager sends to a whole group is for the judge to act on.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def main(words: list[str]) -> None:
    """`worker FD PARENT`: serve on an inherited socket."""
    descriptor, parent = int(words[0]), int(words[1])
    confine(descriptor, parent)
    set_title("policy promoted")
    with socket.socket(fileno=descriptor) as connection:
        serve(connection)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The isolated evaluator: a process that can be killed, with nothing in it but one policy.

The judge starts it with one end of a socketpair, sends `Load` once and then `Evaluate`s, and kills
it when one evaluation takes too long. It has bounds on memory and processor time, no descriptor but
the socket, and ends with its parent. So a rule that spins, crashes or eats memory costs one worker,
not the judge.
"""

import ctypes
import gc
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping

from cel_expr_python import cel

from postweir.policy import dialect
from postweir.policy.bundle import Bundle, Rule, from_canonical, name_of
from postweir.policy.decide import Outcome, decide
from postweir.policy.evaluation import (
    Evaluate,
    Evaluated,
    Keys,
    Load,
    Loaded,
    Mask,
    PolicyFrame,
    RuleFault,
)
from postweir.policy.facts import SCHEMA
from postweir.policy.fused import NONE, Row, joined, rows
from postweir.policy.matching import Matching
from postweir.policy.risks import Range, ranges_of
from postweir.runtime.frames import Frame, Splitter, Torn, encode
from postweir.runtime.title import set_title

MEMORY_BYTES_MAX = 256 * 1024 * 1024  # of address space, sets apart; the default policy takes 38
CPU_S_MAX = 10.0  # for what came at once; the judge ends us long before, unless it is stopped
FLUSH_US = 1000  # answers wait no longer for those behind them, or a healthy worker looks hung
PR_SET_PDEATHSIG = 1
_ERROR = "ERROR: <input>:"


class Engine:
    """One bundle, compiled."""

    def __init__(
        self, bundle: Bundle, policy: str, sets: Mapping[str, bytes] | None = None
    ) -> None:
        self._bundle, self._policy = bundle, policy
        self._matching = Matching(bundle, sets or {})
        declared = {**{fact.name: fact for fact in bundle.own_facts()}, **SCHEMA}
        types = {
            "bool": cel.Type.BOOL, "int": cel.Type.INT, "double": cel.Type.DOUBLE,
            "string": cel.Type.STRING, "list": cel.Type.List(cel.Type.STRING),
        }  # fmt: skip
        self._environment = cel.NewEnv(
            variables={name: types[fact.type] for name, fact in declared.items()}
        )
        self._conditions: dict[int, cel.Expression] = {}  # by the rule's place
        self.cost = 0  # of all of them, at worst
        named: set[str] = set()
        ranges = ranges_of(declared.values(), bundle.limits)
        self.faults = [*self._compile(named, ranges), *self._matching.faults]
        # To hand over a fact costs as much as to ask for it: those that no rule names stay here.
        self._neutral = {name: declared[name].neutral for name in sorted(named & declared.keys())}
        self._rows = [] if self.faults else list(self._joined(rows(bundle.rules)))
        self._standing = self._rows

    def mask(self, killed: Container[str]) -> None:
        """From here on leave out these rules; what is left of a row is asked one by one."""
        rules = self._bundle.rules
        self._standing = []
        for row, expression in self._rows:
            left = tuple(place for place in row if rules[place].id not in killed)
            if left:
                self._standing.append((left, expression if left == row else None))

    def evaluate(self, ask: Evaluate) -> Evaluated:
        """Return the verdict on these facts."""
        began_ns = time.monotonic_ns()
        derived = self._matching.derive(ask)
        values = self._neutral.copy()
        for facts in (derived, ask.facts):
            for name in facts.keys() & values.keys():
                values[name] = facts[name]
        activation = self._environment.Activation(values)
        decided = decide(self._policy, self._said(activation), ask.facts)
        took_us = (time.monotonic_ns() - began_ns) // 1000
        return Evaluated(ask.ask, decided.verdict, derived, decided.errors, took_us, decided.shadow)

    def _said(self, activation: cel.Activation) -> Iterator[tuple[Rule, Outcome]]:
        """Yield what the rules come to, in order; what is plainly false is left out."""
        for row, expression in self._standing:
            first = None if expression is None else self._first(expression, activation)
            if first is None:
                for place in row:
                    yield self._bundle.rules[place], self._outcome(place, activation)
            elif first != NONE:
                yield self._bundle.rules[first], True

    @staticmethod
    def _first(expression: cel.Expression, activation: cel.Activation) -> int | None:
        """Return which rule of a row is true first, or NONE; None: one of them cannot be said."""
        try:
            value = expression.eval(activation).value()
        except Exception:  # noqa: BLE001 - they are asked one by one, and say it themselves
            return None
        return value if type(value) is int else None

    def _outcome(self, place: int, activation: cel.Activation) -> Outcome:
        try:
            value = self._conditions[place].eval(activation)
        except Exception as fault:  # noqa: BLE001 - the engine raises RuntimeError, or worse
            return f"raised {fault}"
        # An error of the engine is a value too, and as a text it is truthy.
        if value.type() != cel.Type.BOOL:
            return str(value.value())
        return value.value() is True

    def _joined(self, each: Iterable[Row]) -> Iterator[tuple[Row, cel.Expression | None]]:
        """Yield the rows, each with its expression, in halves where that is nested too deep."""
        for row in each:
            expression = None
            if len(row) > 1:
                try:
                    expression = self._environment.compile(joined(self._bundle.rules, row))
                except Exception:  # noqa: BLE001 - as below; smaller, it may do
                    half = len(row) // 2
                    yield from self._joined((row[:half], row[half:]))
                    continue
            yield row, expression

    def _compile(self, named: set[str], ranges: Mapping[str, Range]) -> Iterator[RuleFault]:
        """Compile each condition, note what it names, and yield what is wrong with it."""
        cost = 0
        for place, rule in enumerate(self._bundle.rules):
            try:
                condition = self._environment.compile(rule.when)
            except Exception as fault:  # noqa: BLE001 - the engine raises RuntimeError, or worse
                yield from _compile_faults(rule.id, str(fault))
                continue
            self._conditions[place] = condition
            if condition.return_type() != cel.Type.BOOL:
                yield RuleFault(rule.id, 1, 1, "is no question: it must be true or false")
                continue
            checked = condition.serialize()
            named |= dialect.named(checked)
            looked = dialect.look(rule.id, rule.when, checked, ranges)
            cost += looked.cost
            yield from looked.faults
        self.cost = cost
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
    """Return the compiled bundle, or only what is wrong with it.

    Which facts it was written for says nothing: they only ever grow, and what it names is checked.
    """
    try:
        bundle = from_canonical(frame.bundle)
    except Torn as fault:
        return None, Loaded("", f"no bundle: {fault}")
    policy = name_of(frame.bundle)
    engine = Engine(bundle, policy, frame.sets)
    if engine.faults:
        first = engine.faults[0]
        where = f"rule {first.rule}: " if first.rule else ""
        return None, Loaded(policy, f"{where}{first.what}", engine.faults)
    return engine, Loaded(policy, None, cost=engine.cost)


class _Server:
    """What the other end has said so far."""

    def __init__(self) -> None:
        self._pieces: dict[str, bytearray] = {}
        self._engine: Engine | None = None
        self._killed: frozenset[str] = frozenset()

    def hear(self, frame: Frame) -> Frame | None:
        """Return the answer to a frame, None when there is none."""
        if isinstance(frame, Evaluate):
            return None if self._engine is None else self._engine.evaluate(frame)
        if isinstance(frame, Keys):
            self._pieces.setdefault(frame.set, bytearray()).extend(frame.data)
        elif isinstance(frame, Load):
            sets = frame.sets | {name: bytes(data) for name, data in self._pieces.items()}
            self._pieces.clear()
            self._engine, loaded = load(Load(frame.bundle, frame.schema, sets))
            self._mask()
            # A set of a million keys is not to be looked through for garbage in between.
            gc.collect()
            gc.freeze()
            return loaded
        elif isinstance(frame, Mask):
            self._killed = frozenset(frame.rules)
            self._mask()
        return None

    def _mask(self) -> None:
        if self._engine is not None:
            self._engine.mask(self._killed)


def serve(connection: socket.socket, each: Callable[[], None] = lambda: None) -> None:
    """Answer until the other end hangs up; `each` is called whenever something came."""
    splitter: Splitter[Frame] = Splitter(PolicyFrame)
    server = _Server()
    while data := connection.recv(256 * 1024):
        each()
        answers: list[Frame] = []
        flush_ns = time.monotonic_ns() + FLUSH_US * 1000
        for frame in splitter.feed(data):
            answer = server.hear(frame)
            if answer is not None:
                answers.append(answer)
            now_ns = time.monotonic_ns()
            if now_ns >= flush_ns:
                connection.sendall(encode(answers))
                answers.clear()
                flush_ns = now_ns + FLUSH_US * 1000
        if answers:
            connection.sendall(encode(answers))


def confine(descriptor: int, parent: int, memory_bytes: int) -> None:
    """Give up all that an evaluator does not need, and end when the parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    # What a terminal or a service manager sends to a whole group is for the judge to act on.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _bound_cpu() -> None:
    """End by SIGPROF when what came just now takes too long and nobody lives who would end us."""
    signal.setitimer(signal.ITIMER_PROF, CPU_S_MAX)


def main(words: list[str]) -> None:
    """`worker FD PARENT [BYTES]`: serve on an inherited socket; its sets take so much memory."""
    descriptor, parent, *more = map(int, words)
    confine(descriptor, parent, MEMORY_BYTES_MAX + sum(more))
    set_title("policy promoted")
    with socket.socket(fileno=descriptor) as connection:
        serve(connection, _bound_cpu)


if __name__ == "__main__":
    main(sys.argv[1:])

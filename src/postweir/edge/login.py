"""AUTH, from the command to 235 or 535: what a client claims, held against the tables.

A yes is at once. A no looks once more first, as the credential may have been made a moment ago;
that is a task, and until it is over the client hears nothing else. All who ask meanwhile share a
look, and there are ten a second at most, so that guessing does not make work for the tables.

* 535 is said when the tables, looked at after the claim came, do not know it. Whatever keeps us
  from knowing that is 454: a program with the right secret must never be told that it is wrong.
* To check a secret is one HMAC, some microseconds: it is done on the spot, one at a time.
* `guessing` remembers who guesses. Answers to them are held back, a bounded number at once.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from postweir.edge import replies
from postweir.edge.gate import neighbourhood
from postweir.edge.guessing import Guess
from postweir.edge.known import holds, loggable
from postweir.edge.sasl import Challenge, Claim, Garbled, Sasl
from postweir.edge.worker import Worker
from postweir.mail.commands import Auth, AuthAnswer
from postweir.mail.reply import Reply
from postweir.runtime import clock

FAILURES_MAX = 3  # of one connection
AGAIN_S = 1.0  # a credential may have been made a moment ago: look once more before saying no
SURE_S = 60.0  # so long what was looked at and found wrong needs no other look, if nothing changed
HELD_S = 3.0  # a no to who guesses waits so long: a program that waits does not guess meanwhile
HELD_SHARE_MAX = 0.1  # of edge.connections_max: so many noes wait at once, others are shown out


class Talk(Protocol):
    """What a login needs of the connection that it is a part of."""

    @property
    def client(self) -> str:
        """The address it comes from."""
        ...

    def say(self, reply: Reply) -> None:
        """Answer the event at hand."""
        ...

    def misstep(self, reply: Reply, *, fatal: bool = False) -> None:
        """Answer it, and count an error."""
        ...

    def idle_away(self, reply: Reply) -> None:
        """Answer it, and count a command that leads nowhere."""
        ...

    def work(self, work: Coroutine[Any, Any, None]) -> None:
        """Answer by a task; until `task_over` nothing else is answered."""
        ...

    def task_over(self) -> bool:
        """The task at work is done; False when the client is gone."""
        ...

    def run(self) -> None:
        """Go on with what the client said meanwhile."""
        ...


class Login:
    """Who one client has shown to be. `talk` comes with each call: no ring holds two objects."""

    __slots__ = ("_failures", "_sasl", "_worker", "username")

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._sasl: Sasl | None = None
        self._failures = 0
        self.username = ""  # "" until somebody is known

    def forget(self) -> None:
        """TLS stands: what was shown in clear is nothing. Wrong secrets stay counted."""
        self._sasl = None
        self.username = ""

    def begin(self, talk: Talk, event: Auth) -> None:
        """AUTH was said."""
        self._sasl = Sasl(event.mechanism)
        self._step(talk, self._sasl.begin(event.initial))

    def answer(self, talk: Talk, event: AuthAnswer) -> None:
        """A line after our 334."""
        assert self._sasl is not None
        self._step(talk, self._sasl.answer(event.data))

    def _step(self, talk: Talk, step: Challenge | Claim | Garbled) -> None:
        match step:
            case Challenge():
                talk.say(Reply(334, "", step.text))
            case Garbled():
                self._sasl = None
                talk.misstep(replies.GARBLED)
            case Claim():
                self._sasl = None
                self._hear(talk, step)

    def _hear(self, talk: Talk, claim: Claim) -> None:
        worker = self._worker
        directory, guessing = worker.directory, worker.guessing
        guess = guessing.guess(neighbourhood(talk.client), claim)
        now_s = _now_s()
        # How we look is the same for a name we know and one we do not, and so is what it costs.
        right = holds(worker, claim)
        if right and not guessing.bars(guess, now_s):
            self._welcome(talk, claim, guess)
        elif not directory.known:
            self._unsure(talk)
        elif not right and guessing.was_wrong(guess, directory.now.version, now_s - SURE_S):
            self._refuse(talk, guess, "repeated")
        elif right or guessing.backs_off(guess, now_s):
            self._refuse(talk, guess, "backed_off")
        else:
            talk.work(self._hear_again(talk, claim, guess))

    async def _hear_again(self, talk: Talk, claim: Claim, guess: Guess) -> None:
        """The credential may be newer than our picture of the tables: look once more."""
        worker = self._worker
        looked = await worker.directory.again(AGAIN_S)
        reason = ""
        if not holds(worker, claim):
            reason = self._note_wrong(talk, claim, guess) if looked else "unsure"
        if reason == "wrong":
            reason = await self._patiently(guess, reason)
        if not talk.task_over():
            return
        if reason == "unsure":
            self._unsure(talk)
        elif reason:
            self._deny(talk, reason)
        else:
            self._welcome(talk, claim, guess)
        talk.run()

    def _note_wrong(self, talk: Talk, claim: Claim, guess: Guess) -> str:
        worker, now_s = self._worker, _now_s()
        ends = worker.guessing.wrong(guess, worker.directory.now.version, now_s)
        if worker.guessing.worth_a_line(now_s):
            event = "edge.auth_backed_off" if ends else "edge.auth_failed"
            worker.log.info(event, client=talk.client, username=loggable(worker, claim))
        return "wrong"

    def _refuse(self, talk: Talk, guess: Guess, reason: str) -> None:
        """Say no, at once or, where there have been many, late."""
        if self._worker.guessing.wants_patience(guess, _now_s()):
            talk.work(self._refuse_late(talk, guess, reason))
        else:
            self._deny(talk, reason)

    async def _refuse_late(self, talk: Talk, guess: Guess, reason: str) -> None:
        reason = await self._held_back(guess, reason)
        if talk.task_over():
            self._deny(talk, reason)
            talk.run()

    async def _patiently(self, guess: Guess, reason: str) -> str:
        if self._worker.guessing.wants_patience(guess, _now_s()):
            return await self._held_back(guess, reason)
        return reason

    async def _held_back(self, guess: Guess, reason: str) -> str:
        """Wait, while not too many wait; else who asked is shown out at once."""
        worker = self._worker
        guessing, meters = worker.guessing, worker.meters
        most = min(worker.settings.edge.connections_max, worker.room)
        if guessing.held >= most * HELD_SHARE_MAX:
            guessing.shown_out(guess.client, _now_s())
            return "shown_out"
        meters.auth_held.inc()
        guessing.held += 1
        try:
            await asyncio.sleep(HELD_S)
        finally:
            guessing.held -= 1
        return reason

    def _welcome(self, talk: Talk, claim: Claim, guess: Guess) -> None:
        self.username = claim.username
        self._failures = 0
        self._worker.guessing.right(guess, _now_s())
        talk.say(replies.WELCOME)

    def _unsure(self, talk: Talk) -> None:
        self._worker.meters.auth_failures.labels("unsure").inc()
        talk.idle_away(replies.NOT_NOW)

    def _deny(self, talk: Talk, reason: str) -> None:
        self._worker.meters.auth_failures.labels(reason).inc()
        self._failures += 1
        if self._failures >= FAILURES_MAX or reason == "shown_out":
            talk.say(replies.TOO_MANY_ERRORS)
        else:
            talk.say(replies.BACKED_OFF if reason == "backed_off" else replies.WRONG)


def _now_s() -> float:
    return clock.monotonic_ns() / 1e9

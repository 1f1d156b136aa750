"""What the edge process does around its connections: certificates, descriptors, the end."""

import asyncio
import resource
import shutil

from tests.edge.stand import stand, until

from postweir.edge.sweeper import Sweeper
from postweir.processes.edge import FILES_OTHER, Certificate, room_for
from postweir.runtime.log import quiet
from postweir.runtime.settings import Settings, Tls


def test_a_reload_may_name_another_certificate(tmp_path, certificate):
    """New paths are taken at the next look; bad ones leave what is in force; none ends it."""
    crt, key = (shutil.copy(path, tmp_path / f"other-{path.name}") for path in certificate)
    first = Settings(tls=Tls(str(certificate[0]), str(certificate[1])))
    found = Certificate(first, quiet())
    before = found.context
    found.look(first)
    assert found.context is before is not None
    found.look(Settings(tls=Tls(str(crt), str(key))))
    assert found.context not in (None, before)
    now = found.context
    found.look(Settings(tls=Tls(str(tmp_path / "none"), str(key))))
    assert found.context is now
    found.look(Settings())
    assert found.context is None


def test_descriptors_are_enough_or_fewer_get_in():
    """We take what connections may need; where we may not, we say for how many it is enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        assert room_for(450) == 450 or hard < 2 * 450 + FILES_OTHER
        assert room_for(100) >= 100
        took = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert took == min(hard, 2 * 450 + FILES_OTHER)
        if hard < 10**7:
            assert room_for(10**9) == (hard - FILES_OTHER) // 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Odd:
    """A connection that cannot be swept."""

    def __init__(self) -> None:
        self.swept = self.aborted = False

    def sweep(self, now: float) -> None:
        self.swept = True
        raise RuntimeError("odd")

    def drain(self) -> None:
        return

    def abort(self) -> None:
        self.aborted = True


async def test_a_fault_in_one_sweep_spares_the_others():
    """A connection whose sweep fails is cut off; every other deadline goes on."""
    sweeper, told = Sweeper(), []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    one, other = Odd(), Odd()
    sweeper.enter(one)
    sweeper.enter(other)
    sweeping = asyncio.create_task(sweeper.run())
    await until(lambda: one.aborted and other.aborted)
    sweeping.cancel()

    assert len(told) >= 2
    assert not sweeping.done()


async def test_a_drain_clears_away(tmp_path):
    """What a cut-off client had on disk, and nobody will name, is gone when the drain is over."""
    async with stand(tmp_path) as on:
        client = await on.login()
        await client.begin()
        client.say(b"Subject: a\r\n\r\n" + b"line\r\n" * 60_000)
        await until(on.files)
        on.worker.stopping = True
        await on.sweeper.drain(0.05)

        assert on.files() == []
        await client.hang_up()

"""The watch process: gathers every process's metrics and health on `metrics.listen`."""

from postweir.processes.child import Ground
from postweir.processes.supervisor import wanted
from postweir.runtime import frames, metrics, settings
from postweir.watch.gather import Gatherer


async def serve(ground: Ground) -> None:
    """Serve until told to stop."""
    gatherer = Gatherer(ground.run, wanted(ground.settings))

    def answer(path: str) -> tuple[str, str, bytes] | None:
        if path == "/metrics":
            return "200 OK", metrics.TEXT, gatherer.metrics().encode()
        if path == "/health":
            now = gatherer.health()
            status = "200 OK" if now["ok"] else "503 Service Unavailable"
            return status, "application/json", frames.json(now)
        return None

    metrics.serve(settings.address(ground.settings.metrics.listen), answer)
    ground.up()
    await ground.stopping.wait()

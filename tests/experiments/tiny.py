"""A trial that takes as little as one can: no torch, no training, two reports. For load tests."""

import json
import sys
from dataclasses import asdict, dataclass

from trials.session import engine


@dataclass(frozen=True)
class Settings:
    x: float = 0.5
    y: float = 0.5

    def complete(self, device) -> "Settings":
        return self

    def describe_inputs(self) -> dict[str, str]:
        return {"data": "nothing"}

    def report_count(self) -> int:
        return 2


def check(settings: Settings):
    from trials.session import DiskUse  # not above: torch takes seconds

    return DiskUse(0, 0)


def score(settings: Settings) -> dict[str, float]:
    """Best, 1, at (0.3, 0.7)."""
    return {"default": 1 - (settings.x - 0.3) ** 2 - (settings.y - 0.7) ** 2, "part": settings.x}


def main() -> None:
    host = engine.current_engine()
    parameters = host.get_parameters()
    found = score(Settings(**parameters))
    for step in (1, 2):
        host.report_intermediate(found)
        with open(host.folder / "stats.jsonl", "a") as stats:
            stats.write(json.dumps({"step": step, "score": found}) + "\n")
    record = {"system": "tiny", "parameters": parameters, "settings": asdict(Settings(**parameters)),
              "status": "finished", "reason": None, "score": found}  # fmt: skip
    (host.folder / "run.json").write_text(json.dumps(record))
    host.report_final(found)


if __name__ == "__main__":
    sys.exit(main())

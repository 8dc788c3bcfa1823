"""A trial that takes as little as one can: no torch, no training, two reports."""

import json
import os
import signal
import sys
from dataclasses import asdict, dataclass

from trials.session import engine


@dataclass(frozen=True)
class Settings:
    x: float = 0.5
    y: float = 0.5
    crash: bool = False  # trial 3 before it asks for its parameters, trial 5 after
    hold: bool = False  # each waits after its first report until it is stopped
    fail: bool = False  # each fails
    seed: int = 0
    budget: float = 1.0

    def complete(self, device) -> "Settings":
        return self

    def describe_inputs(self) -> dict[str, str]:
        return {"data": "nothing"}

    def report_count(self) -> int:
        return 2


def given(option: str) -> bool:
    """Return whether the command has this option, and not as `--option false`."""
    return f"{option} false" not in " ".join(sys.argv) and option in sys.argv


MEASURED = {"start": 1.0, "step": 0.01, "report": 0.01, "steps": 2, "reports": 2, "device": "cpu (tiny)",
            "memory": None}

if __name__ == "__main__":
    if given("--measure"):
        print(json.dumps(MEASURED))
        sys.exit()
    crash = int(os.environ["NNI_TRIAL_SEQ_ID"]) if given("--crash") else None
    if crash == 3:
        sys.exit("before it asks")
    host = engine.current_engine()
    settings = Settings(**host.get_parameters())
    if given("--fail"):
        sys.exit(f"process {os.getpid()} fails")
    if crash == 5:
        sys.exit("after it has asked")
    score = {"default": 1 - (settings.x - 0.3) ** 2 - (settings.y - 0.7) ** 2, "part": settings.x}
    for step in (1, 2):
        host.report_intermediate(score)
        with open(host.folder / "stats.jsonl", "a") as stats:
            stats.write(json.dumps({"step": step, "score": score}) + "\n")
        if given("--hold"):
            signal.pause()
    record = {"system": "tiny", "settings": asdict(settings), "status": "finished", "score": score}
    (host.folder / "run.json").write_text(json.dumps(record))
    host.report_final(score)

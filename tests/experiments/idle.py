"""A trial that takes nothing but a process: it waits at a gate. For `tests.experiments.many`.

    python -S -E tests/experiments/idle.py GATE

Speaks NNI's protocol by itself (nni/runtime/platform/local.py), because a thousand imports of it are an
hour of CPU. The gate is a file that someone has locked: to wait there costs no time.
"""

import fcntl
import json
import os
import sys


def main() -> None:
    folder = os.environ["NNI_SYS_DIR"]
    with open(f"{folder}/parameter.cfg") as file:
        proposal = json.load(file)
    os.makedirs(f"{folder}/.nni", exist_ok=True)
    with open(f"{folder}/.nni/metrics", "ab") as metrics:
        for sequence, kind in enumerate(("PERIODICAL", "FINAL")):
            told = json.dumps({
                "parameter_id": proposal["parameter_id"], "trial_job_id": os.environ["NNI_TRIAL_JOB_ID"],
                "type": kind, "sequence": sequence,
                "value": json.dumps({"default": proposal["parameters"]["x"]}),
            }).encode() + b"\n"  # fmt: skip
            metrics.write(b"ME%06d%b" % (len(told), told))
            metrics.flush()
            if kind == "PERIODICAL":
                with open(sys.argv[1]) as gate:
                    fcntl.flock(gate, fcntl.LOCK_SH)


if __name__ == "__main__":
    main()

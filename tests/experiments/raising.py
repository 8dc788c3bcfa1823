"""A tuner and an assessor that raise, in NNI's process."""

import sys

from nni.assessor import Assessor, AssessResult

from experiments.nni_adapter.database import ROOT
from experiments.tuner import Tpe


class Tuner(Tpe):
    """TPE that raises ValueError at its `fails_at`-th proposal, from 0, or with `leaves` SystemExit."""

    def __init__(self, fails_at: int, leaves: bool = False, **options):
        super().__init__(**options)
        self._left, self._leaves = fails_at, leaves

    def generate_parameters(self, parameter_id, **options) -> dict:
        self._left -= 1
        if self._left < 0:
            if self._leaves:
                sys.exit("the tuner leaves")
            raise ValueError("the tuner raises")
        return super().generate_parameters(parameter_id, **options)


class RaisingAssessor(Assessor):
    """An assessor that raises at its first report."""

    def __init__(self, optimize_mode: str = "maximize", start_step: int = 1):
        pass

    def assess_trial(self, trial_job_id: str, trial_history: list) -> AssessResult:
        raise ValueError("the assessor raises")


def tuner(**arguments) -> dict:
    """Return the part of an experiment file that names the tuner above."""
    common = {"reference": "tests.experiments.tiny", "seed": 0, "tpe_args": {"n_startup_jobs": 2}}
    return {"className": f"{__name__}.Tuner", "codeDirectory": str(ROOT), "classArgs": common | arguments}


ASSESSOR = {"className": f"{__name__}.RaisingAssessor", "codeDirectory": str(ROOT),
            "classArgs": {"start_step": 1}}

"""Successive halving as an NNI assessor; NNI's own Hyperband and BOHB fail at the first report.

It runs inside NNI's tuner process. In an experiment file, with `start_step` as in Medianstop:

    assessor:
      className: experiments.assessor.SuccessiveHalving
      codeDirectory: ..
      classArgs: {optimize_mode: maximize, start_step: 1, eta: 3}
"""

import optuna
from nni.assessor import Assessor, AssessResult
from nni.utils import extract_scalar_reward
from optuna.pruners import SuccessiveHalvingPruner

optuna.logging.set_verbosity(optuna.logging.WARNING)


class SuccessiveHalving(Assessor):
    """ASHA (Li et al. 2020, 1810.05934) by Optuna's pruner; it stops a trial where the paper pauses it.

    At each rung a trial goes on only if it is among the best 1 / eta of the trials that have reached the
    rung. The first trials at a rung go on if they are the best so far.

    The first rung is at report `start_step`, the paper's r; further ones are at `start_step` times eta,
    eta^2, ... The reduction factor `eta` is at least 2; the paper's experiments use 4.
    """

    def __init__(self, start_step: int, eta: int = 3, optimize_mode: str = "maximize"):
        pruner = SuccessiveHalvingPruner(min_resource=start_step, reduction_factor=eta)
        self._study = optuna.create_study(direction=optimize_mode, pruner=pruner)
        self._trials: dict[str, optuna.Trial] = {}

    def assess_trial(self, trial_job_id: str, trial_history: list) -> AssessResult:
        """Return Good if the trial goes on after these reports, numbers or dicts with `default`, else Bad."""
        if trial_job_id not in self._trials:
            self._trials[trial_job_id] = self._study.ask()
        trial = self._trials[trial_job_id]
        trial.report(extract_scalar_reward(trial_history[-1]), step=len(trial_history))
        return AssessResult.Bad if trial.should_prune() else AssessResult.Good

    def trial_end(self, trial_job_id: str, success: bool) -> None:
        self._trials.pop(trial_job_id, None)  # its reports stay in the study: later trials are compared

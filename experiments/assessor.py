"""Successive halving as an assessor of NNI's, whose own Hyperband and BOHB die at the first report.

Runs inside NNI's tuner process; in an experiment file, with `start_step` as Medianstop has it:

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
    """ASHA (Li et al. 2020, 1810.05934) that stops where the paper pauses: at each rung a trial goes on
    only if it is among the best 1 / eta of those that came so far, the first few if they are the best
    yet. Optuna's pruner decides.

    Args:
        start_step: reports up to the first rung, the paper's r; the others are at `start_step` times
            eta, eta^2, ...
        eta: at least 2; the paper's own experiments take 4.
        optimize_mode: maximize or minimize.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, start_step: int, eta: int = 3, optimize_mode: str = "maximize"):
        pruner = SuccessiveHalvingPruner(min_resource=start_step, reduction_factor=eta)
        self._study = optuna.create_study(direction=optimize_mode, pruner=pruner)
        self._trials: dict[str, optuna.Trial] = {}

    def assess_trial(self, trial_job_id: str, trial_history: list) -> AssessResult:
        """Whether a trial with these reports, numbers or dicts with `default`, goes on."""
        if trial_job_id not in self._trials:
            self._trials[trial_job_id] = self._study.ask()
        trial = self._trials[trial_job_id]
        trial.report(extract_scalar_reward(trial_history[-1]), step=len(trial_history))
        return AssessResult.Bad if trial.should_prune() else AssessResult.Good

    def trial_end(self, trial_job_id: str, success: bool) -> None:
        """Its rungs stay: later trials are measured by them."""
        self._trials.pop(trial_job_id, None)

"""NNI's TPE with what a search of GANs needs beside it. Runs inside NNI's tuner process.

Named by `className: experiments.tuner.Tpe` in the experiment files.
"""

import json
import logging
import subprocess
import sys
from pathlib import Path

import nni
from nni.algorithms.hpo.tpe_tuner import TpeTuner
from nni.common.hpo_utils import format_parameters
from nni.runtime import msg_dispatcher
from nni.tuner import Tuner

from experiments.nni_adapter import database

log = logging.getLogger(__name__)


class Tpe(TpeTuner):
    """TPE (Bergstra et al. 2011) whose first trial is the published setting.

    Args:
        reference: module of the trial, for example `trials.cyclegan`; the defaults of its
            `Settings` are what every search must beat.
        resumes: folder of a search that was broken off. Its results are known from the start, and
            its unfinished trials are proposed first.
        optimize_mode: `maximize`, since a score is best when highest; NNI's own default is not.
        options: as NNI's TpeTuner: seed, tpe_args.
    """

    def __init__(
        self, reference: str, optimize_mode: str = "maximize", resumes: str | None = None, **options,
    ):
        super().__init__(optimize_mode, **options)
        self._reference = reference
        self._earlier = database.find_experiment(resumes).trials() if resumes else []
        self._given: list[dict] | None = None  # what is proposed before TPE has its say
        self._taught = set()  # parameter ids whose result is in the history
        _tell_of_early_stops()

    def update_search_space(self, space: dict) -> None:
        """Take the space, and once what an earlier search learnt in it."""
        super().update_search_space(space)
        if self._given is None:
            self.import_data([{"parameter": trial.parameters, "value": trial.latest}
                              for trial in self._earlier if trial.settled and trial.latest])
            self._given = [trial.parameters for trial in self._earlier if not trial.settled]
            if not self._earlier:
                defaults = defaults_of(self._reference)
                self._given = [{name: defaults[name] for name in space}]

    def generate_parameters(self, parameter_id, **options):
        """The published setting first, or what an earlier search left unfinished; then what TPE proposes."""
        if not self._given:
            return super().generate_parameters(parameter_id, **options)
        given = self._given.pop(0)
        internal = format_parameters(given, self.space)
        self._params[parameter_id] = self._running_params[parameter_id] = internal
        self.dedup.add_history(internal)
        return given  # not through the internal form: exp(log(5)) need not be 5

    def receive_trial_result(self, parameter_id, parameters, value, **options):
        """Learn a trial's result, once.

        NNI's own raises KeyError, and with it ends the search, where a result comes after the
        trial's end or comes twice: an early-stopped trial does the one, an assessor that says
        "stop" at two reports in a row the other.
        """
        if parameter_id in self._taught:
            log.warning("a second result of %s is left out: %s", parameter_id, value)
            return
        self._taught.add(parameter_id)
        self._running_params.setdefault(parameter_id, self._params[parameter_id])
        super().receive_trial_result(parameter_id, parameters, value, **options)


class Listed(Tuner):
    """Proposes each of some settings with each of some seeds, and nothing else.

    Args:
        settings: parameters by name of setting, by a name for people.
        seeds: all settings with the first, then all with the second, and so on.
        search: ID of the search that the settings come from. It is not used here; NNI stores it with
            the experiment, where the search's report finds it.
    """

    def __init__(self, settings: dict[str, dict], seeds: list[int], search: str | None = None):
        super().__init__()
        self._left = [{**one, "seed": seed} for seed in seeds for one in settings.values()]

    def update_search_space(self, search_space: dict) -> None:
        """Nothing is searched: the space only tells the web UI what there is."""

    def generate_parameters(self, parameter_id, **options) -> dict:
        """The next of the list."""
        if not self._left:
            raise nni.NoMoreTrialError
        return self._left.pop(0)

    def receive_trial_result(self, parameter_id, parameters, value, **options) -> None:
        """Nothing is learnt."""


def defaults_of(module: str) -> dict:
    """The defaults of a trial's settings, by name.

    Asked of another process, because a trial imports torch: 0.8 GB that the tuner would hold for
    as long as the search lasts.
    """
    code = f"import json, {module} as t; print(json.dumps(vars(t.Settings())))"
    root = Path(__file__).parent.parent  # NNI starts the tuner elsewhere
    return json.loads(subprocess.check_output([sys.executable, "-c", code], text=True, cwd=root))


def _tell_of_early_stops() -> None:
    """Let an early-stopped trial's last report teach the tuner, which else learns nothing of it.

    NNI reads this from an environment variable at import; here it also holds for `nnictl create`.
    """
    variables = msg_dispatcher.dispatcher_env_vars
    msg_dispatcher.dispatcher_env_vars = variables._replace(NNI_INCLUDE_INTERMEDIATE_RESULTS="true")

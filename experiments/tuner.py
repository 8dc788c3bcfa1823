"""NNI's TPE tuner with what a search for GANs needs, and a tuner for a fixed list.

They run in NNI's tuner process; experiment files name them, for example `className: experiments.tuner.Tpe`.
"""

import logging
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import nni
import numpy as np
import psutil
import requests
from nni.algorithms.hpo.tpe_tuner import TpeTuner
from nni.common.hpo_utils import format_parameters
from nni.runtime import msg_dispatcher
from nni.tuner import Tuner

from experiments.nni_adapter import database, dispatcher, manager
from experiments.trial_command import published
from judge.common.children import bound
from judge.common.errors import UserError
from judge.common.files import last_line


class Tpe(TpeTuner):
    """TPE (Bergstra et al. 2011) whose first trial is the published setting.

    Args:
        reference: module of the trial; the defaults of its `Settings` are the published setting.
        resumes: folder of a search that was interrupted. Its results are added to the history, and its
            unfinished trials are proposed first.
        options: as for NNI's TpeTuner: seed, tpe_args.
    """

    def __init__(self, reference: str, optimize_mode="maximize", resumes: str | None = None, **options):
        super().__init__(optimize_mode, **options)
        self._reference = reference
        self._earlier = database.find_experiment(resumes).trials() if resumes else []
        if self._earlier and options.get("seed") is not None:  # else it draws again what it has drawn
            self.rng = np.random.default_rng((options["seed"], len(self._earlier)))
        self._fixed: list[dict] | None = None  # proposed before TPE's own
        self._learnt = set()  # parameter ids whose result is in the history
        dispatcher.report_errors()  # `nnictl create` does not start ours
        # Let NNI pass the last report of an early-stopped trial to the tuner (runtime/msg_dispatcher.py:242).
        # NNI reads this option from the environment at import; set here, it holds for `nnictl create` too. No
        # longer needed when it is an option of the experiment file.
        variables = msg_dispatcher.dispatcher_env_vars
        msg_dispatcher.dispatcher_env_vars = variables._replace(NNI_INCLUDE_INTERMEDIATE_RESULTS="true")

    def update_search_space(self, space: dict) -> None:
        """Set the space; at the first call also add what the resumed search has learnt."""
        super().update_search_space(space)
        if self._fixed is None:
            check_plain_nni()
            self.import_data([{"parameter": trial.parameters, "value": trial.latest}
                              for trial in self._earlier if trial.settled and trial.latest])
            self._fixed = [trial.parameters for trial in self._earlier if not trial.settled]
            if not self._earlier:
                first = published(import_module(self._reference))
                self._fixed = [{name: first[name] for name in space}]

    def generate_parameters(self, parameter_id, **options):
        """Return the published setting or unfinished trials of the resumed search, then TPE's proposals.

        The bookkeeping repeats nni/algorithms/hpo/tpe_tuner.py:184-187; no longer needed when TpeTuner
        accepts settings to try first.
        """
        if not self._fixed:
            return super().generate_parameters(parameter_id, **options)
        parameters = self._fixed.pop(0)
        internal = format_parameters(parameters, self.space)
        self._params[parameter_id] = self._running_params[parameter_id] = internal
        self.dedup.add_history(internal)
        return parameters  # not converted back from the internal form: exp(log(5)) may differ from 5

    def receive_trial_result(self, parameter_id, parameters, value, **options):
        """Add a trial's result to the history, once.

        NNI raises KeyError, which ends the search, if a result comes twice or after the trial's end
        (tpe_tuner.py:197). An early-stopped trial causes the latter, an assessor that stops it at two reports
        in a row the former. No longer needed when that line has a default.
        """
        if parameter_id in self._learnt:
            logging.getLogger(__name__).warning("a second result of %s is ignored: %s", parameter_id, value)
            return
        self._learnt.add(parameter_id)
        self._running_params.setdefault(parameter_id, self._params[parameter_id])
        super().receive_trial_result(parameter_id, parameters, value, **options)


class Listed(Tuner):
    """Proposes all settings (parameters by name) with the first seed, then all with the second, and so on.

    `search`, the ID of the search that they come from, is not used: NNI stores it for the report.
    """

    def __init__(self, settings: dict[str, dict], seeds: list[int], search: str | None = None):
        super().__init__()
        self._queue = [{**parameters, "seed": seed} for seed in seeds for parameters in settings.values()]

    def update_search_space(self, search_space: dict) -> None:
        """Ignore the space, which is only shown in the web UI."""

    def generate_parameters(self, parameter_id, **options) -> dict:
        if not self._queue:
            raise nni.NoMoreTrialError
        return self._queue.pop(0)

    def receive_trial_result(self, parameter_id, parameters, value, **options) -> None:
        """Ignore the result."""


def check_plain_nni() -> None:
    """Check an experiment that was started by plain `nnictl create`, as `run` does before it starts one.

    Else each of its trials would fail, one after the other. Raises UserError with what `check` says: in NNI's
    web UI the experiment's state is then ERROR, and the line is in its dispatcher's log.
    """
    channel = os.environ.get("NNI_TUNER_COMMAND_CHANNEL")
    if manager.EXPERIMENT in os.environ or channel is None:  # started by `run`, or not by NNI
        return
    url = channel.replace("ws://", "http://").removesuffix("/tuner")
    config = requests.get(f"{url}/api/v1/nni/experiment", timeout=60).json()["params"]
    with tempfile.TemporaryDirectory() as folder:
        file = manager.write_config(Path(folder) / "experiment.yml", database.without_repeats(config))
        # NNI hides the GPUs from its tuner, but not from its manager.
        nni_manager = next(p for p in psutil.Process().parents() if manager.MANAGER in p.cmdline())
        command = [sys.executable, "-m", "experiments", "check", str(file), "--unmeasured"]
        checked = subprocess.run(bound(command), env=nni_manager.environ(), cwd=database.ROOT, text=True,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if checked.returncode:
        raise UserError(last_line(checked.stderr))

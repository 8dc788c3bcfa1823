"""Find mistakes in an experiment file before anything runs; NNI reports few of them, and late."""

import hashlib
import importlib
import logging
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import nni
import torch
from nni.algorithms.hpo.tpe_tuner import TpeArguments, TpeTuner
from nni.common.hpo_utils import deformat_parameters, format_search_space, validate_search_space
from nni.tools.package_utils import create_builtin_class_instance
from sklearn.metrics import roc_auc_score

from experiments import early_check, overrides
from experiments.nni_adapter import remote
from experiments.nni_adapter.config import load
from experiments.nni_adapter.database import RESUMES, ROOT, error_prefix
from experiments.nni_adapter.manager import search_path
from experiments.nni_adapter.place import check_place
from experiments.overrides import NO_OVERRIDES, Overrides
from experiments.trial_command import parse, published, python_of, quoted, trials_folder
from judge import evaluation, images, model
from judge.common import cache
from judge.common.device import available_cores
from judge.common.errors import UserError, one_line
from judge.folders import data_folder
from judge.score import FORMULAS
from trials.session import DiskUse, RunOptions, training_of, with_parameters
from trials.session.engine import NniEngine

PLATFORMS = ("local", "remote")  # NNI's training services that trials and adapter know
DRAWS, MAX_DRAWS = 50, 200  # of a search space: at least, and at most for a search of many trials
MAX_VALUES = 10**6  # of a randint or choice: TPE takes some 50 bytes for each
SIGMAS = 4  # standard deviations from the mean, beyond which NNI draws one number of 16,000
GOOD_AUC, REFUSED_AUC = 0.9, 0.7  # of a judge on the test images: below, it is warned of, and refused
MAX_JUDGED_IMAGES = 200  # of each domain, which fix an AUC to about 0.02
BUILT_IN = ("sample", "digits", "pattern", *FORMULAS)  # data, judges and scores that are not files


@dataclass(frozen=True)
class Plan:
    """An experiment file that has been read and checked."""

    file: Path
    config: Any  # NNI's ExperimentConfig, canonical: absolute paths, defaults filled in
    module: ModuleType  # the trial's, for example trials.cyclegan
    settings: Any  # the trial's by its command, completed, before the tuner's parameters
    run_options: RunOptions  # the trial's
    footprint: DiskUse  # of a trial
    gpus: int  # GPUs of this machine that trials use
    notes: list[str]  # lines on what is allowed, but perhaps not meant
    source: bytes  # the experiment file as it is run: the user's, or one with the overrides


def judge_on_data(settings: Any, any_judge: bool = False) -> str | None:
    """Return a warning if the judge tells photographs from paintings badly in the data of a checked trial.

    None if it tells them well, or if there is no judge or only one of the two. A judge learns from one data
    set, and what it says of others may be chance. Takes seconds, and nothing the second time, by the cache.
    Raises UserError if its AUC is below `REFUSED_AUC`, unless `any_judge`.
    """
    file = getattr(settings, "judge", None)
    if file is None or settings.describe_inputs().get("judge") != file:
        return None
    if not (data_folder(settings.data) / f"test{images.PHOTOS}").is_dir():
        return None  # a folder of one class
    data = images.find_dataset(settings.data)
    test = {domain: paths[:: -(-len(paths) // MAX_JUDGED_IMAGES)] for domain, paths in data.test.items()}
    states = [(str(path.resolve()), path.stat().st_mtime_ns) for paths in test.values() for path in paths]
    key = hashlib.sha256(repr((model.sha256_of(file), states)).encode()).hexdigest()

    def measure() -> dict:
        judge, _ = model.load_judge(file)
        pixels, labels, *_ = evaluation.load_both_domains(test, judge.size)
        return {"auc": float(roc_auc_score(labels, evaluation.painting_probabilities(judge, pixels)))}

    auc = cache.get_or_make(f"auc-{key[:32]}.pt", measure)["auc"]
    if auc >= GOOD_AUC:
        return None
    says = (f"{file} tells the photographs of {data.name} from the paintings with an AUC of {auc:.2f} (0.5: "
            f"chance, {GOOD_AUC}: good), train a judge on this data (python -m judge train)")
    refuse(auc < REFUSED_AUC and not any_judge, f"{says}, or add --any-judge")
    return f"warning: {says}"


def refuse(condition: object, message: str) -> None:
    """Raise a UserError with this message if the condition is true."""
    if condition:
        raise UserError(message)


def check(file: Path, given: Overrides = NO_OVERRIDES) -> Plan:
    """Read and check an experiment file, changed as `overrides.change` does.

    Raises UserError for the first mistake.
    """
    config = load(file)
    refuse(config.tuner is None, f"{file} names no tuner")
    platform = getattr(config.training_service, "platform", "a list")
    refuse(platform not in PLATFORMS, f"trainingService: {platform} is not supported, only "
                                      f"{' and '.join(PLATFORMS)}")
    overrides.set_command(config, quoted(config.trial_command or ""))
    notes, source = overrides.change(config, given), overrides.source(file, config, given)
    check_place("the repository", ROOT)
    check_place("trialCodeDirectory", config.trial_code_directory)
    check_place("experimentWorkingDirectory", config.experiment_working_directory)
    with trials_folder(config.trial_code_directory):
        module, chosen, run_options = parse(config.trial_command)
        with error_prefix("trialCommand", UserError):
            device = run_options.torch_device()
            settings = chosen.complete(device)
        check_tuner(config, module)
        check_space(config, module, chosen)
        notes += check_draws(config, chosen, device)
        notes += check_machine(config, settings, run_options)
        footprint = training_of(module.__name__).check(settings)
        if config.assessor:
            notes += check_assessor(config.assessor, settings.report_count())
        return Plan(file, config, module, settings, run_options, footprint,
                    gpus_used(config, run_options), notes, source)


def check_space(config: Any, module: ModuleType, settings: Any) -> None:
    """Check that NNI can draw from the space of each setting, that the trial takes the ends of what it draws,
    and that the published value is among it; `settings` are those of the trial's command, not completed."""
    space = config.search_space
    refuse(not isinstance(space, dict) or not space,
           "search space: it must be an object of names with _type and _value")
    early_check.check_space(space, module, settings)
    for name, spec in space.items():
        where = f"search space: {name}"
        with error_prefix(where):
            validate_search_space({name: spec}, raise_exception=True)
        kind, values = spec["_type"], spec["_value"]
        with error_prefix(f"{where}: NNI cannot draw from {kind} {values}"):  # errors of many kinds
            ends = extremes({name: spec})
        with error_prefix(f"{where}: {kind} draws what trials refuse", UserError):
            for parameters in ends:
                with_parameters(settings, parameters)
        if "reference" not in (config.tuner.class_args or {}):
            continue
        first = published(module)[name]
        refuse(first is None, f"{where} has no published value, it depends on --size")
        within = first in values if kind == "choice" else "normal" in kind or (
            values[0] <= first <= values[1] - (kind == "randint"))
        refuse(not within, f"{where} {values} does not contain the published value {first}, which every "
                           "search runs first")


def extremes(space: dict) -> list[dict]:
    """Return parameters at the ends of all that NNI draws from the space of one setting, by NNI's code:
    every choice, the ends of a range, and `SIGMAS` away from the mean of a normal distribution."""
    formatted, proposals = format_search_space(space), []
    for key, spec in formatted.items():
        if spec.categorical:
            if spec.size > MAX_VALUES:
                raise ValueError(f"TPE counts all of its {spec.size:,} values, give at most {MAX_VALUES:,}")
            ends = range(spec.size) if spec.type == "choice" else (0, spec.size - 1)
        elif spec.normal_distributed:
            ends = spec.mu - SIGMAS * spec.sigma, spec.mu + SIGMAS * spec.sigma
        else:
            ends = spec.low, spec.high
        proposals += [deformat_parameters({key: end}, formatted) for end in ends]
    return proposals


def check_tuner(config: Any, module: ModuleType) -> None:
    """Check that the tuner can be made and maximizes, and the assessor likewise."""
    for part in filter(None, (config.tuner, config.assessor)):
        # NNI's TPE minimizes by default, its assessors maximize.
        mode = (part.class_args or {}).get("optimize_mode", "minimize" if part.name == "TPE" else "maximize")
        refuse(mode != "maximize",
               f"{part.name or part.class_name}: optimize_mode is {mode!r}, but a score must be maximized")
    reference = (config.tuner.class_args or {}).get("reference", module.__name__)
    refuse(reference != module.__name__, f"tuner: reference {reference} is not the trial, {module.__name__}")
    make(config.tuner, "tuner")


def check_draws(config: Any, settings: Any, device: torch.device) -> list[str]:
    """Draw settings as NNI's TPE will, read each as a trial does, and return notes on draws that waste.

    `settings` are those of the trial's command, not completed. Raises UserError if a draw is refused, or if
    TPE fails: it takes the best ceil(gamma x sqrt(n)) of n results as good ones, the others as bad ones, and
    if one of the two is empty, its numpy.bincount for a choice or randint fails (tpe_tuner.py:316). The
    latter is no longer needed when NNI checks for that.
    """
    arguments, trials = config.tuner.class_args or {}, config.max_trial_number
    is_tpe = "TPE" in (config.tuner.name or config.tuner.class_name).upper()
    tpe_args = (is_tpe and arguments.get("tpe_args")) or {}
    start = tpe_args.get("n_startup_jobs", TpeArguments().n_startup_jobs)
    refuse(type(start) is not int, f"tuner: n_startup_jobs is {start!r}, but must be a whole number")
    tuner = TpeTuner("maximize", seed=0, tpe_args=tpe_args)
    tuner.update_search_space(config.search_space)
    for number in range(max(DRAWS, start + 1, min(trials or 0, MAX_DRAWS))):
        try:
            parameters = tuner.generate_parameters(number)
        except nni.NoMoreTrialError:
            if trials and number >= trials or RESUMES in arguments:
                break
            return [f"the search space has only {number} different settings: the search ends when all are "
                    "tried"]
        except Exception as error:  # any: it is NNI's fault
            if trials and number >= trials:
                break  # the search does not come so far
            raise UserError(f"tuner: after n_startup_jobs {start}, NNI's TPE fails at a choice or randint "
                            f"({one_line(error)}): set it higher, for example to 8") from None
        with error_prefix(f"search space: {len(config.search_space)} settings drawn by NNI", UserError):
            with_parameters(settings, parameters).complete(device)
        tuner.receive_trial_result(number, parameters, 0.0)
    if is_tpe and trials and start >= trials and RESUMES not in arguments:  # which had its random start
        return [f"all {trials} trials are drawn at random: TPE begins after n_startup_jobs {start}"]
    return []


def check_assessor(assessor: Any, reports: int) -> list[str]:
    """Check that the assessor can be made and starts after the first report; a note says if it never acts."""
    start = (assessor.class_args or {}).get("start_step", 0)
    refuse(type(start) is not int, f"assessor: start_step is {start!r}, but must be a whole number")
    refuse(start < 1,
           "assessor: start_step is a number of reports: with 0 it stops trials before their first report")
    make(assessor, "assessor")
    if start >= reports:
        return [f"the assessor stops no trial: start_step is {start}, and a trial makes {reports} reports"]
    return []


def make(part: Any, kind: str) -> None:
    """Make the tuner or assessor as NNI will, which would report errors only in its logs."""
    logging.getLogger("nni").setLevel(logging.WARNING)  # the tuner logs its seed
    arguments = part.class_args or {}
    with error_prefix(f"{kind} {part.name or part.class_name}"):  # errors of many kinds
        if part.name:
            create_builtin_class_instance(part.name, arguments, f"{kind}s")
        else:
            module, name = part.class_name.rsplit(".", 1)
            getattr(importlib.import_module(module), name)(**arguments)


def check_machine(config: Any, settings: Any, run_options: RunOptions) -> list[str]:
    """Check that there are enough GPUs and cores, here or on the workers, and return notes on them."""
    wanted, at_once = config.trial_gpu_number, config.trial_concurrency
    refuse(wanted and wanted > 1, f"trialGpuNumber {wanted}, but a trial uses one GPU: set it to 1, and "
                                  "trialConcurrency to the number of GPUs")
    if is_remote(config):
        return check_workers(config, settings, run_options)
    python = python_of(config.trial_command)
    refuse(not shutil.which(python, path=search_path()), f"trialCommand: there is no program {python}")
    gpus = torch.cuda.device_count()
    refuse(wanted and not gpus, "trialGpuNumber 1, but torch sees no GPU here, and NNI would wait forever: "
                                "use experiments/cyclegan.yml")
    refuse(wanted == 0 and gpus and run_options.device != "cpu",
           "trialGpuNumber: 0 hides the GPU from trials: add --device cpu to trialCommand")
    usable, each = len(config.training_service.gpu_indices or range(gpus)), trials_per_gpu(config)
    refuse(wanted and at_once > usable * each,
           f"trialConcurrency {at_once}, but {usable} GPUs run {usable * each} trials at once")
    used = gpus_used(config, run_options)
    notes = [f"all trials share GPU 0 of {gpus}: to use all, set trialGpuNumber: 1 as in "
             "experiments/cyclegan-gpus.yml; if it is meant, set CUDA_VISIBLE_DEVICES=0"]
    return (notes if used and not wanted and gpus > 1 else []) + check_threads(
        at_once, run_options, available_cores(), "here", on_gpu=used > 0)


def is_remote(config: Any) -> bool:
    """Return whether trials run on other machines."""
    return hasattr(config.training_service, "machine_list")


def trials_per_gpu(config: Any) -> int:
    """Return how many trials share a GPU of this machine at most."""
    if not config.trial_gpu_number:
        return config.trial_concurrency
    return config.training_service.max_trial_number_per_gpu


def gpus_used(config: Any, run_options: RunOptions) -> int:
    """Return how many GPUs of this machine trials use. NNI fills one before it takes the next."""
    if is_remote(config) or config.trial_gpu_number == 0 or run_options.torch_device().type == "cpu":
        return 0
    return -(-config.trial_concurrency // trials_per_gpu(config))


def check_threads(at_once: int, run_options: RunOptions, cores: int, where: str, on_gpu: bool) -> list[str]:
    """Check that trials on CPUs have no more threads than there are cores; return a note on trials on GPUs.

    Two single threads are always allowed.
    """
    threads, most = run_options.threads or NniEngine.threads, max(2, cores)
    message = f"trialConcurrency {at_once} x --threads {threads} is more than {most} cores {where}"
    if at_once * threads <= most:
        return []
    refuse(not on_gpu, f"{message}: all trials would be many times slower, lower one of them")
    return [f"{message}: allowed, because trials on a GPU mostly wait for it"]


def check_workers(config: Any, settings: Any, run_options: RunOptions) -> list[str]:
    """Check that the other machines can be reached, have what trials need, and are all used; return notes."""
    refuse(not config.training_service.reuse_mode,
           "trainingService: reuseMode false is not supported, remove it")
    for machine in config.training_service.machine_list:
        name = f"machineList: {machine.host}"
        refuse(machine.password is not None or machine.ssh_passphrase is not None,
               f"{name}: NNI's web UI shows passwords: use an sshKeyFile without a passphrase")
        refuse(machine.gpu_indices is not None or machine.max_trial_number_per_gpu != 1,
               f"{name}: NNI ignores gpuIndices and maxTrialNumberPerGpu: remove them")
    refuse(hasattr(settings, "size") and "--size" not in config.trial_command,
           "trialCommand: add --size; the default, auto, may differ between machines")
    names = ("data", "judge", "score")
    inputs = [str(getattr(settings, name)) for name in names if hasattr(settings, name)]
    paths = [path for path in inputs if path not in BUILT_IN]
    for path in paths:
        refuse(not Path(path).is_absolute(), f"trialCommand: {path} is not found on other machines: give "
                                             "an absolute path, the same on all machines")
    gpus_each, at_once, notes = config.trial_gpu_number or 0, 0, []
    for worker in remote.workers(config.json()):
        probe = worker.probe(python_of(config.trial_command), paths)
        refuse(probe["missing"], f"{worker.name} has no {' and no '.join(probe['missing'])}")
        refuse(probe["nni"] != version("nni"),
               f"{worker.name} has nni {probe['nni']}, this machine has {version('nni')}")
        refuse(gpus_each > probe["gpus"],
               f"trialGpuNumber {gpus_each}, but torch sees {probe['gpus']} GPUs on {worker.name}")
        trials = probe["gpus"] // gpus_each if gpus_each else 1
        on_gpu = gpus_each or config.trial_gpu_number is None and probe["gpus"]
        notes += check_threads(trials, run_options, probe["cores"], f"on {worker.name}",
                               on_gpu=on_gpu and run_options.device != "cpu")
        at_once += trials
    # More would only wait. With fewer, NNI's runner on an idle machine ends itself after ten minutes, and
    # the next trial that is sent there is lost.
    each = "" if gpus_each else ", one on each machine without trialGpuNumber"
    refuse(config.trial_concurrency != at_once,
           f"trialConcurrency {config.trial_concurrency}, but the machines run {at_once} at once{each}: set "
           f"it to {at_once}")
    return notes

"""Find mistakes in an experiment file before anything runs; NNI reports few of them, and late."""

import contextlib
import importlib
import io
import json
import logging
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from experiments.nni_adapter import remote
from experiments.nni_adapter.database import RESUMES
from experiments.trial_command import module_of, parse, python_of  # noqa: F401
from judge.common.device import available_cores
from judge.common.errors import UserError, one_line
from judge.common.files import atomic_write
from trials.session import DiskUse, RunOptions, with_parameters
from trials.session.engine import NniEngine

# NNI's types of search spaces and how many numbers they take; it reads a misspelt one as a float from 0 to 1.
RANGES = {"uniform": 2, "loguniform": 2, "quniform": 3, "qloguniform": 3}
NORMALS = {"normal": 2, "lognormal": 2, "qnormal": 3, "qlognormal": 3}
TYPES = {"choice": None, "randint": 2, **RANGES, **NORMALS}


@dataclass(frozen=True)
class Plan:
    """An experiment file that has been read and checked."""

    file: Path
    config: Any
    """NNI's `ExperimentConfig`, canonical: absolute paths, defaults filled in."""
    module: ModuleType
    """The trial's module, for example `trials.cyclegan`."""
    settings: Any
    """The trial's settings by its command, completed, before the tuner's parameters."""
    run_options: RunOptions
    space: dict[str, dict]
    footprint: DiskUse | None = None
    """Disk space that a trial takes."""


def check(file: Path) -> Plan:
    """Read and check an experiment file.

    Raises:
        UserError: the first mistake.
    """
    config = load(file)
    module, settings, run_options = parse(config.trial_command)
    try:
        settings = settings.complete(run_options.torch_device())
    except UserError as error:
        raise UserError(f"trialCommand: {error}") from None
    plan = Plan(file, config, module, settings, run_options, config.search_space)
    check_paths(config)
    check_space(plan)
    check_tuner(plan)
    check_machine(plan)
    plan = replace(plan, footprint=module.check(settings))
    check_assessor(plan)
    return plan


def load(file: Path) -> Any:
    """Return the experiment file as NNI's `ExperimentConfig`.

    Raises:
        UserError: there is no such file, it is not YAML, or NNI refuses a key or a type.
    """
    from nni.experiment.config import ExperimentConfig  # here, because it takes a second
    from nni.experiment.config.utils import unset_base_path

    if not file.is_file():
        raise UserError(f"no experiment file {file}")
    write_nni_defaults()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            config = ExperimentConfig.load(file)
            # The address that workers call: their own loopback (experiments.nni_adapter.remote).
            config.nni_manager_ip = "127.0.0.1"
            return config.canonical_copy()
    except Exception as error:  # NNI's readers raise errors of many kinds
        # NNI sets it in nni/experiment/config/base.py:144 and after an error does not unset it.
        unset_base_path()
        raise UserError(f"{file}: {one_line(error) or type(error).__name__}") from None


def write_nni_defaults() -> None:
    """Write NNI's lists of user-defined algorithms and services if they do not exist.

    NNI does this at first use with copyfile (nni/runtime/config.py:35), so that a second process may read
    half a file and fail. No longer needed when that write is atomic.
    """
    from nni.runtime.config import get_builtin_config_file, get_config_directory

    with contextlib.suppress(OSError):  # NNI reports it where it needs them
        for name in ("registered_algorithms.yml", "training_services.json"):
            file, content = get_config_directory() / name, get_builtin_config_file(name).read_bytes()
            if not file.exists():
                atomic_write(file, lambda part, content=content: part.write_bytes(content))


def check_paths(config: Any) -> None:
    """Refuse folders with spaces: NNI does not quote paths."""
    for name in ("trial_code_directory", "experiment_working_directory"):
        if " " in str(getattr(config, name)):
            raise UserError(f"{name}: NNI cannot run in a path with a space: {getattr(config, name)}")


# ---------------------------------------------------------------------------------------------
# Search space


def check_space(plan: Plan) -> None:
    """Check that each name is a setting, that values fit it, and that its published value is in the range."""
    names = {field.name for field in fields(plan.settings)}
    if not isinstance(plan.space, dict) or not plan.space:
        raise UserError(f"search space of {plan.file}: it must be an object of names with _type and _value")
    arguments = plan.config.tuner.class_args or {} if plan.config.tuner else {}
    for name, spec in plan.space.items():
        if name not in names:
            raise UserError(f"search space: {name} is not a setting of {plan.module.__name__}; "
                            f"there are {', '.join(sorted(names))}")
        check_form(name, spec)
        for value in extremes(spec):
            try:
                with_parameters(plan.settings, {name: value})
            except UserError as error:
                raise UserError(f"search space: {error}") from None
        if "reference" in arguments:
            check_default(name, spec, getattr(plan.module.Settings(), name))


def check_form(name: str, spec: Any) -> None:
    """Check that `_type` is a type of NNI's and that `_value` fits it."""
    where = f"search space: {name}"
    if not isinstance(spec, dict) or not {"_type", "_value"} <= set(spec):
        raise UserError(f"{where} needs _type and _value, it is {json.dumps(spec)}")
    kind, value = spec["_type"], spec["_value"]
    if not isinstance(kind, str) or kind not in TYPES:
        raise UserError(f"{where} has _type {kind!r}; NNI knows {', '.join(TYPES)}")
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: _value must be a list, it is {json.dumps(value)}")
    if kind == "choice":
        return
    if len(value) != TYPES[kind] or not all(type(x) in (int, float) for x in value):
        raise UserError(f"{where}: {kind} takes {TYPES[kind]} numbers, it has {json.dumps(value)}")
    if kind not in NORMALS and value[0] >= value[1]:
        raise UserError(f"{where}: the first number of {json.dumps(value)} must be the lower end")
    if "log" in kind and kind not in NORMALS and value[0] <= 0:
        raise UserError(f"{where}: a {kind} range must begin above 0, this one begins at {value[0]}")


def extremes(spec: dict) -> list:
    """Return values such that all that `spec` can propose fit a setting if these do."""
    kind, value = spec["_type"], spec["_value"]
    if kind == "choice":
        return value
    if kind == "randint":  # the upper end is not drawn
        return [value[0], value[1] - 1]
    if kind in NORMALS:
        return value[:1]
    return value[:2]


def check_default(name: str, spec: dict, default: Any) -> None:
    """Check that the tuner could propose the published value, which is in every search's first trial."""
    kind, value = spec["_type"], spec["_value"]
    if default is None:
        raise UserError(f"search space: {name} has no published value, it depends on --size")
    inside = default in value if kind == "choice" else kind in NORMALS or value[0] <= default <= value[1]
    if kind == "randint":
        inside = inside and default < value[1]
    if not inside:
        raise UserError(f"search space: {name} {json.dumps(value)} does not contain the published value "
                        f"{default}, which every search runs first")


# ---------------------------------------------------------------------------------------------
# Tuner and assessor


def check_tuner(plan: Plan) -> None:
    """Check that the tuner can be made, maximizes, and does not only draw at random."""
    tuner, trials = plan.config.tuner, plan.config.max_trial_number
    if tuner is None:
        raise UserError(f"{plan.file} names no tuner")
    for part in filter(None, (tuner, plan.config.assessor)):
        # NNI's TPE minimizes by default, its assessors maximize.
        default = "minimize" if part is tuner and tuner.name == "TPE" else "maximize"
        mode = (part.class_args or {}).get("optimize_mode", default)
        if mode != "maximize":
            raise UserError(f"{part.name or part.class_name}: optimize_mode is {mode!r}, but a score must be "
                            "maximized")
    arguments = tuner.class_args or {}
    if arguments.get("reference", plan.module.__name__) != plan.module.__name__:
        raise UserError(f"tuner: reference {arguments['reference']} is not the trial, {plan.module.__name__}")
    make(tuner, "tuner")
    if "TPE" not in (tuner.name or tuner.class_name).upper() or RESUMES in arguments:
        return  # a resumed search has had its random start
    start = require_int((arguments.get("tpe_args") or {}).get("n_startup_jobs", 20), "tuner: n_startup_jobs")
    if trials is not None and start >= trials:
        raise UserError(f"tuner: n_startup_jobs {start} of maxTrialNumber {trials} makes it a random search")


def check_assessor(plan: Plan) -> None:
    """Check that the assessor can be made and starts after the first report and before the last."""
    assessor = plan.config.assessor
    if assessor is None:
        return
    start = require_int((assessor.class_args or {}).get("start_step", 0), "assessor: start_step")
    reports = plan.settings.report_count()
    if start < 1:
        raise UserError("assessor: start_step is a number of reports: with 0 it stops trials before their "
                        "first report")
    if start >= reports:
        raise UserError(f"assessor: start_step {start}, but a trial reports {reports} times: it never acts")
    make(assessor, "assessor")


def make(part: Any, kind: str) -> None:
    """Make the tuner or assessor as NNI will, which would report errors only in its logs.

    Raises:
        UserError: there is none of this name, or it does not accept these classArgs.
    """
    from nni.tools.package_utils import create_builtin_class_instance  # here, because it takes a second

    logging.getLogger("nni").setLevel(logging.WARNING)  # the tuner logs its seed
    arguments = part.class_args or {}
    try:
        if part.name:
            create_builtin_class_instance(part.name, arguments, f"{kind}s")
        else:
            module, name = part.class_name.rsplit(".", 1)
            getattr(importlib.import_module(module), name)(**arguments)
    except Exception as error:  # tuners raise errors of many kinds
        raise UserError(f"{kind} {part.name or part.class_name}: {one_line(error)}") from None


def require_int(value: Any, name: str) -> int:
    """Return `value`.

    Raises:
        UserError: it is not a whole number.
    """
    if type(value) is not int:
        raise UserError(f"{name} is {value!r}, but must be a whole number")
    return value


# ---------------------------------------------------------------------------------------------
# This machine and others


def check_machine(plan: Plan) -> None:
    """Check that there are enough GPUs and cores, here or on the workers."""
    config = plan.config
    if hasattr(config.training_service, "machine_list"):
        return check_workers(plan)
    wanted, gpus = config.trial_gpu_number or 0, torch.cuda.device_count()
    if wanted > gpus:
        raise UserError(f"trialGpuNumber {wanted}, but torch sees {gpus} GPUs here, and NNI would wait "
                        "forever: use experiments/cyclegan.yml or a smaller number")
    if config.trial_gpu_number == 0 and gpus and plan.run_options.device == "auto":
        raise UserError("trialGpuNumber: 0 hides the GPU from trials: add --device cpu to trialCommand")
    at_once = config.trial_concurrency
    trials_per_gpu = getattr(config.training_service, "max_trial_number_per_gpu", None) or 1
    if wanted and at_once * wanted > gpus * trials_per_gpu:
        raise UserError(f"trialConcurrency {at_once} x {wanted} GPUs, but there are {gpus}")
    check_threads(at_once, plan, available_cores(), "here")


def check_threads(at_once: int, plan: Plan, cores: int, where: str) -> None:
    """Check that trials have no more threads than there are cores; two single threads are always allowed."""
    threads = plan.run_options.threads or NniEngine.threads
    most = max(2, cores)
    if at_once * threads > most:
        raise UserError(f"trialConcurrency {at_once} x --threads {threads} is more than {most} cores {where}:"
                        " all trials would be many times slower, lower one of them")


def check_workers(plan: Plan) -> None:
    """Check that the other machines can be reached, have what trials need, and are all used."""
    config = plan.config
    if not config.training_service.reuse_mode:
        raise UserError("trainingService: reuseMode false is not supported, remove it")
    for machine in config.training_service.machine_list:
        check_machine_entry(machine)
    if hasattr(plan.settings, "size") and "--size" not in config.trial_command:
        raise UserError("trialCommand: add --size; the default, auto, may differ between machines")
    inputs = [str(getattr(plan.settings, name)) for name in ("data", "judge") if hasattr(plan.settings, name)]
    paths = [path for path in inputs if path not in remote.BUILT_IN]
    for path in paths:
        if not Path(path).is_absolute():
            raise UserError(f"trialCommand: {path} is not found on other machines: give --data and --judge "
                            "as absolute paths, the same on all machines")
    gpus_each, at_once = config.trial_gpu_number or 0, 0
    for worker in remote.workers(config.json()):
        probe = worker.probe(python_of(config.trial_command), paths)
        if probe["missing"]:
            raise UserError(f"{worker.name} has no {' and no '.join(probe['missing'])}")
        if probe["nni"] != version("nni"):
            raise UserError(f"{worker.name} has nni {probe['nni']}, this machine has {version('nni')}")
        if gpus_each > probe["gpus"]:
            raise UserError(f"trialGpuNumber {gpus_each}, but torch sees {probe['gpus']} GPUs on "
                            f"{worker.name}")
        trials = probe["gpus"] // gpus_each if gpus_each else 1
        check_threads(trials, plan, probe["cores"], f"on {worker.name}")
        at_once += trials
    if config.trial_concurrency != at_once:
        # More would only wait. With fewer, NNI's runner on an idle machine ends itself after ten minutes, and
        # the next trial that is sent there is lost.
        each = "" if gpus_each else ", one on each machine without trialGpuNumber"
        raise UserError(f"trialConcurrency {config.trial_concurrency}, but the machines run {at_once} at once"
                        f"{each}: set it to {at_once}")


def check_machine_entry(machine: Any) -> None:
    """Refuse keys in machineList that NNI ignores or shows in its web UI."""
    name = f"machineList: {machine.host}"
    if machine.password is not None or machine.ssh_passphrase is not None:
        raise UserError(f"{name}: NNI's web UI shows passwords: use an sshKeyFile without a passphrase")
    if machine.gpu_indices is not None or machine.max_trial_number_per_gpu != 1:
        raise UserError(f"{name}: NNI ignores gpuIndices and maxTrialNumberPerGpu: remove them")

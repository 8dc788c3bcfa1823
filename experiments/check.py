"""Looks for what would go wrong before anything runs; NNI itself says little and says it late."""

import contextlib
import importlib
import io
import json
import logging
import shlex
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from experiments.nni_adapter import remote
from experiments.nni_adapter.database import RESUMES, ROOT
from judge.common.cli import from_namespace
from judge.common.device import available_cores
from judge.common.errors import UserError, one_line
from judge.common.files import atomic_write
from trials.session import DiskUse, RunOptions, trial_parser, with_parameters
from trials.session.engine import NniEngine

# NNI's search space types; a misspelt one it takes for a float in 0..1 without a word.
RANGES = {"uniform": 2, "loguniform": 2, "quniform": 3, "qloguniform": 3}
NORMALS = {"normal": 2, "lognormal": 2, "qnormal": 3, "qlognormal": 3}
TYPES = {"choice": None, "randint": 2, **RANGES, **NORMALS}


@dataclass(frozen=True)
class Plan:
    """A checked experiment file."""

    file: Path
    config: Any
    """NNI's `ExperimentConfig`, canonical: absolute paths, defaults filled in."""
    module: ModuleType
    """The trial's, for example `trials.cyclegan`."""
    settings: Any
    """The trial's settings as its command gives them, before the tuner's parameters."""
    machine: RunOptions
    space: dict[str, dict]
    footprint: DiskUse | None = None
    """What a trial leaves on the disk."""


def check(file: Path) -> Plan:
    """The experiment in `file`, found able to run.

    Raises:
        UserError: the first thing that is wrong.
    """
    config = load(file)
    module, settings, machine = trial_of(config.trial_command)
    plan = Plan(file, config, module, settings, machine, config.search_space)
    check_paths(config)
    check_space(plan)
    check_tuner(plan)
    check_machine(plan)
    plan = replace(plan, footprint=module.check(settings))
    check_assessor(plan)
    return plan


def load(file: Path) -> Any:
    """NNI's own reading of the YAML.

    Raises:
        UserError: not there, not YAML, or NNI refuses a key or a type.
    """
    from nni.experiment.config import ExperimentConfig  # not above: takes a second
    from nni.experiment.config.utils import unset_base_path

    if not file.is_file():
        raise UserError(f"no experiment file {file}")
    make_lists()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            config = ExperimentConfig.load(file)
            # What other machines would call: on all of them it is their own loopback (experiments.remote).
            config.nni_manager_ip = "127.0.0.1"
            return config.canonical_copy()
    except Exception as error:  # NNI raises whatever its readers raise
        unset_base_path()  # which NNI forgets, and then refuses every later file
        raise UserError(f"{file}: {one_line(error) or type(error).__name__}") from None


def make_lists() -> None:
    """NNI's lists of users' own algorithms and services, which it writes in a new environment when first
    asked for any: another process that asks meanwhile reads half of one, and breaks."""
    from nni.runtime.config import get_builtin_config_file, get_config_directory

    with contextlib.suppress(OSError):  # NNI says what is wrong, where it needs them
        for name in ("registered_algorithms.yml", "training_services.json"):
            file, content = get_config_directory() / name, get_builtin_config_file(name).read_bytes()
            if not file.exists():
                atomic_write(file, lambda part, content=content: part.write_bytes(content))


def trial_of(command: str) -> tuple[ModuleType, Any, RunOptions]:
    """The module, settings and machine options of a trial command.

    Raises:
        UserError: not of the form `python -m trials.NAME OPTIONS`, or an option is wrong.
    """
    module = module_of(command)
    try:
        options = trial_parser(module.Settings, module.__name__).parse_args(shlex.split(command)[3:])
    except UserError as error:
        raise UserError(f"trialCommand: {one_line(error)}") from None
    machine = from_namespace(RunOptions, options)
    try:
        settings = from_namespace(module.Settings, options).complete(machine.torch_device())
    except UserError as error:
        raise UserError(f"trialCommand: {error}") from None
    return module, settings, machine


def module_of(command: str) -> ModuleType:
    """The trial's module that a trial command runs.

    Raises:
        UserError: not of the form `python -m trials.NAME OPTIONS`, or there is no such trial.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:  # quotes that do not close
        raise UserError(f"trialCommand {command!r}: {one_line(error)}") from None
    if words[:1] == ["exec"]:
        raise UserError("trialCommand: without `exec`, which hides the exit state from NNI")
    if len(words) < 3 or words[1] != "-m":
        raise UserError(f"trialCommand {command!r} is not of the form python -m trials.NAME OPTIONS")
    # By file: the command may be in a stranger's experiment, and to import is to run.
    file = ROOT.joinpath(*words[2].split(".")).with_suffix(".py")
    module = importlib.import_module(words[2]) if "." in words[2] and file.is_file() else None
    if not hasattr(module, "Settings"):
        raise UserError(f"trialCommand: there is no trial {words[2]}")
    return module


def check_paths(config: Any) -> None:
    """NNI leaves paths unquoted."""
    for name in ("trial_code_directory", "experiment_working_directory"):
        if " " in str(getattr(config, name)):
            raise UserError(f"{name}: NNI cannot run in {getattr(config, name)}, which has a space in it")


def check_space(plan: Plan) -> None:
    """Every name is a setting, every value fits it, and the published default lies within."""
    known = {field.name for field in fields(plan.settings)}
    if not isinstance(plan.space, dict) or not plan.space:
        raise UserError(f"search space of {plan.file}: an object of names with _type and _value")
    for name, spec in plan.space.items():
        if name not in known:
            raise UserError(f"search space: {name} is no setting of {plan.module.__name__}; "
                            f"there are {', '.join(sorted(known))}")
        check_form(name, spec)
        for value in extremes(spec):
            try:
                with_parameters(plan.settings, {name: value})
            except UserError as error:
                raise UserError(f"search space: {error}") from None
        if "reference" in (plan.config.tuner.class_args or {} if plan.config.tuner else {}):
            check_default(name, spec, getattr(plan.module.Settings(), name))


def check_form(name: str, spec: Any) -> None:
    """`_type` is one that NNI knows and `_value` has what it needs."""
    where = f"search space: {name}"
    if not isinstance(spec, dict) or not {"_type", "_value"} <= set(spec):
        raise UserError(f"{where} needs _type and _value, it is {json.dumps(spec)}")
    kind, value = spec["_type"], spec["_value"]
    if not isinstance(kind, str) or kind not in TYPES:
        raise UserError(f"{where} has _type {kind!r}; NNI knows {', '.join(TYPES)}")
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: _value is a list, it is {json.dumps(value)}")
    if kind == "choice":
        return
    if len(value) != TYPES[kind] or not all(_is_number(x) for x in value):
        raise UserError(f"{where}: {kind} takes {TYPES[kind]} numbers, it has {json.dumps(value)}")
    if kind not in NORMALS and value[0] >= value[1]:
        raise UserError(f"{where}: the first of {json.dumps(value)} is the lower end")
    if "log" in kind and kind not in NORMALS and value[0] <= 0:
        raise UserError(f"{where}: a {kind} range begins above 0, this one at {value[0]}")


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def extremes(spec: dict) -> list:
    """Values that stand for all that `spec` can propose."""
    kind, value = spec["_type"], spec["_value"]
    if kind == "choice":
        return value
    if kind == "randint":  # the upper end is not drawn
        return [value[0], value[1] - 1]
    if kind in NORMALS:
        return value[:1]
    return value[:2]


def check_default(name: str, spec: dict, default: Any) -> None:
    """The published value is one that the tuner could propose: it is every search's first trial."""
    kind, value = spec["_type"], spec["_value"]
    if default is None:
        raise UserError(f"search space: {name} has no published value of its own, it goes with --size")
    inside = default in value if kind == "choice" else kind in NORMALS or value[0] <= default <= value[1]
    if kind == "randint":
        inside = inside and default < value[1]
    if not inside:
        raise UserError(f"search space: {name} {json.dumps(value)} leaves out the published {default}, "
                        "which every search runs first")


def check_tuner(plan: Plan) -> None:
    """A search that only ever draws at random is not one."""
    tuner, trials = plan.config.tuner, plan.config.max_trial_number
    if tuner is None:
        raise UserError(f"{plan.file} names no tuner")
    arguments = tuner.class_args or {}
    for part in (tuner, plan.config.assessor):
        # NNI's tuners minimize and its assessors maximize unless told.
        default = "minimize" if part is tuner and tuner.name == "TPE" else "maximize"
        mode = (part.class_args or {}).get("optimize_mode", default) if part else default
        if part and mode != "maximize":
            name = part.name or part.class_name
            raise UserError(f"{name}: optimize_mode {mode!r}, but a score is to be maximized")
    if arguments.get("reference", plan.module.__name__) != plan.module.__name__:
        raise UserError(f"tuner: reference {arguments['reference']} is not the trial, {plan.module.__name__}")
    build(tuner, "tuner")
    if "TPE" not in (tuner.name or tuner.class_name).upper() or RESUMES in arguments:
        return  # the rest of a search has had its start
    start = whole((arguments.get("tpe_args") or {}).get("n_startup_jobs", 20), "tuner: n_startup_jobs")
    if trials is not None and start >= trials:
        raise UserError(f"tuner: n_startup_jobs {start} of maxTrialNumber {trials} makes it a random search")


def build(part: Any, kind: str) -> None:
    """Make the tuner or assessor as NNI will, which says only in its logs what was wrong.

    Raises:
        UserError: there is none of this name, or it does not take these classArgs.
    """
    from nni.tools.package_utils import create_builtin_class_instance  # not above: takes a second

    logging.getLogger("nni").setLevel(logging.WARNING)  # it tells of its seed
    arguments = part.class_args or {}
    try:
        if part.name:
            create_builtin_class_instance(part.name, arguments, f"{kind}s")
        else:
            module, name = part.class_name.rsplit(".", 1)
            getattr(importlib.import_module(module), name)(**arguments)
    except Exception as error:  # each raises what it likes
        raise UserError(f"{kind} {part.name or part.class_name}: {one_line(error)}") from None


def whole(value: Any, name: str) -> int:
    """`value`, a whole number.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{name} is {value!r} where a whole number belongs")
    return value


def check_assessor(plan: Plan) -> None:
    """An assessor that judges before there is a report, or after the last."""
    assessor = plan.config.assessor
    if assessor is None:
        return
    start = whole((assessor.class_args or {}).get("start_step", 0), "assessor: start_step")
    reports = plan.settings.report_count()
    if start < 1:
        raise UserError("assessor: start_step 0 stops trials before their first report; it counts reports")
    if start >= reports:
        raise UserError(f"assessor: start_step {start}, but a trial reports {reports} times: it never acts")
    build(assessor, "assessor")


def check_workers(plan: Plan) -> None:
    """Other machines can be reached, have what trials need, and are all at work."""
    service = plan.config.training_service
    if not service.reuse_mode:
        raise UserError("trainingService: reuseMode false is not supported, leave it out")
    for machine in service.machine_list:
        check_worker(machine)
    if hasattr(plan.settings, "size") and "--size" not in plan.config.trial_command:
        raise UserError("trialCommand: give --size, it would be what each machine makes of auto")
    inputs = [str(getattr(plan.settings, name)) for name in ("data", "judge") if hasattr(plan.settings, name)]
    paths = [place for place in inputs if place not in remote.BUILT_IN]
    for place in paths:
        if not Path(place).is_absolute():
            raise UserError(f"trialCommand: {place} is not there where other machines train: give --data and "
                            "--judge as absolute paths, the same on all of them")
    wanted, at_once = plan.config.trial_gpu_number or 0, 0
    for worker in remote.workers(plan.config.json()):
        found = worker.probe(shlex.split(plan.config.trial_command)[0], paths)
        if found["missing"]:
            raise UserError(f"{worker.name} has no {' and no '.join(found['missing'])}")
        if found["nni"] != version("nni"):
            raise UserError(f"{worker.name} has nni {found['nni']}, here it is {version('nni')}")
        if wanted > found["gpus"]:
            raise UserError(f"trialGpuNumber: {wanted}, but torch sees {found['gpus']} GPUs on {worker.name}")
        trials = found["gpus"] // wanted if wanted else 1
        check_threads(trials, plan.machine.threads or NniEngine.threads, found["cores"], worker.name)
        at_once += trials
    if plan.config.trial_concurrency != at_once:
        # More would only wait; with fewer, NNI's runner on an idle machine ends itself after ten minutes
        # and takes the next trial that is sent there with it.
        each = "" if wanted else ", without trialGpuNumber one each"
        raise UserError(f"trialConcurrency {plan.config.trial_concurrency}, but the machines run {at_once} "
                        f"at once{each}: set it to {at_once}")


def check_worker(machine: Any) -> None:
    """No entry of machineList that NNI would show around, or leaves unread."""
    name = f"machineList: {machine.host}"
    if machine.password is not None or machine.ssh_passphrase is not None:
        raise UserError(f"{name}: NNI's web UI shows passwords: give an sshKeyFile without a passphrase")
    if machine.gpu_indices is not None or machine.max_trial_number_per_gpu != 1:
        raise UserError(f"{name}: NNI does not heed gpuIndices and maxTrialNumberPerGpu: leave them out")


def check_machine(plan: Plan) -> None:
    """GPUs that are there, and no more threads than cores."""
    if hasattr(plan.config.training_service, "machine_list"):
        return check_workers(plan)
    wanted = plan.config.trial_gpu_number or 0
    there = torch.cuda.device_count()
    if wanted > there:
        raise UserError(f"trialGpuNumber: {wanted}, but torch sees {there} GPUs here: NNI would wait for "
                        "ever; take experiments/cyclegan.yml or set it lower")
    if plan.config.trial_gpu_number == 0 and there and plan.machine.device == "auto":
        raise UserError("trialGpuNumber: 0 hides the GPU from trials: add --device cpu to trialCommand")
    at_once = plan.config.trial_concurrency
    shared = getattr(plan.config.training_service, "max_trial_number_per_gpu", None) or 1
    if wanted and at_once * wanted > there * shared:
        raise UserError(f"trialConcurrency {at_once} x {wanted} GPUs, but there are {there}")
    check_threads(at_once, plan.machine.threads or NniEngine.threads, available_cores())


def check_threads(at_once: int, threads: int, cores: int, where: str = "here") -> None:
    """Two single threads merely share one core; it is more threads each that thrash."""
    most = max(2, cores)
    if at_once * threads > most:
        raise UserError(f"trialConcurrency {at_once} x --threads {threads} is more than {most} cores {where}"
                        ", which slows every trial many times over: lower one")

"""The command of a trial: reads settings and options, then trains, or with --measure measures.

Torch is imported when the command line has been read: help and what is refused do not wait for it.
"""

import sys
from contextlib import suppress
from importlib import import_module
from types import ModuleType

from judge.common.cli import importing, main
from judge.common.errors import UserError, one_line
from trials.session.engine import NoEngine, current_engine
from trials.session.records import write_json
from trials.session.settings import parse_trial, system_of, with_parameters


def training_of(module: str) -> ModuleType:
    """Return the training of the system whose settings are in `module`: the file of its name in training/."""
    package, _, name = module.rpartition(".")
    return import_module(f"{package}.training.{name}")


def run(Settings: type) -> None:
    """Run a trial, started from the command line or by the engine, and exit."""
    system = system_of(Settings)
    prog = f"python -m trials.{system}"

    def command(arguments: list[str]) -> int:
        sys.stdout.reconfigure(line_buffering=True)  # NNI's log can be read while the trial runs
        settings, options = parse_trial(Settings, prog, arguments)
        with importing():
            import torch

            from trials.session.measurement import measure
            from trials.session.session import Session

            train = training_of(f"trials.{system}").train
        device, engine = options.torch_device(), NoEngine() if options.measure else current_engine()
        if threads := options.threads or engine.threads:
            torch.set_num_threads(threads)
        parameters = engine.get_parameters()
        try:
            settings = with_parameters(settings, parameters).complete(device)
            if options.measure:
                return measure(train, system, settings, options)
            session = Session(system, settings, options, engine, parameters)
        except UserError as error:  # there is no Record yet that could say so in run.json
            if engine.folder and not (engine.folder / "run.json").exists():
                with suppress(OSError):  # the user needs the first error
                    write_json(engine.folder / "run.json", {
                        "parameters": parameters, "status": "failed", "reason": one_line(error)})
            raise
        return session.run(train)

    main(prog, command)

"""The command of a trial: reads settings and options, then trains, or with --measure measures."""

import sys
from contextlib import suppress
from pathlib import Path

import torch

from judge.common.cli import main
from judge.common.errors import UserError, one_line
from trials.session.engine import NoEngine, current_engine
from trials.session.measurement import measure
from trials.session.records import write_json
from trials.session.session import Session, Train
from trials.session.settings import parse_trial, with_parameters


def run(train: Train, Settings: type) -> None:
    """Run a trial, started from the command line or by the engine, and exit."""
    system = Path(sys.modules[train.__module__].__file__).stem
    prog = f"python -m trials.{system}"

    def command(arguments: list[str]) -> int:
        sys.stdout.reconfigure(line_buffering=True)  # NNI's log can be read while the trial runs
        settings, options = parse_trial(Settings, prog, arguments)
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

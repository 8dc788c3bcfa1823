"""Measure how fast a CycleGAN trains here, and what share of the device's arithmetic rate that is.

    python -m trials.bench --size sketch
    python -m trials.bench --size draft --precision fp32 --threads 2 --json
    python -m trials.bench --size sketch --peer    # compare with the loop as it is usually written
    python -m trials.bench --size paper --against graphs=off compile=on    # and our step with other settings

The steps are those of a trial, on random images. If the data and the judge exist, a short trial also shows
how long start-up, scoring and reporting take.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from judge.common.cli import (
    ComputeOptions,
    Namespace,
    Parser,
    PositiveFloat,
    PositiveInt,
    from_namespace,
    importing,
    main,
)
from judge.common.errors import UserError
from trials.cyclegan import Settings
from trials.session.records import versions


@dataclass(frozen=True)
class Options(ComputeOptions):
    """How to measure."""

    peer: bool = False
    """Compare with the plain loop (trials/bench/peer.py: eager, fp32), timed in turns with ours."""
    peer_path: Path | None = None
    """Compare with the authors' code too: a checkout of pytorch-CycleGAN-and-pix2pix, whose code is run."""
    rounds: PositiveInt = 7
    """Number of turns; their median is printed."""
    seconds: PositiveFloat = 10.0
    """Seconds for which each function is timed, all rounds together."""
    json: bool = False
    """Print one JSON object instead of lines."""


def command(arguments: list[str]) -> None:
    """Run the benchmark and print its result."""
    parser = Parser(__doc__, prog="python -m trials.bench")
    parser.add_fields(Options)
    parser.add_argument("--against", nargs="+", action="extend", metavar="SETTING=VALUE",
                        help="compare with our step under other settings, timed in turns: a row for each "
                        "word; commas join settings that change together (graphs=off,precision=fp32)")
    parser.add_fields(Settings)
    namespace = parser.parse_args(arguments)
    options, settings = from_namespace(Options, namespace), from_namespace(Settings, namespace)
    variants = {word: variant(namespace, word) for word in namespace.against or ()}
    with importing():
        import torch

        from judge.common.device import device_name
        from trials.bench.speed import compare, describe, measure_steps, measure_trial
    if options.threads:
        torch.set_num_threads(options.threads)
    device = options.torch_device()
    settings = settings.complete(device)
    variants = {word: changed.complete(device) for word, changed in variants.items()}
    result = {"device": device_name(device), "threads": torch.get_num_threads(), "versions": versions(),
              "settings": asdict(settings)}
    if options.peer or options.peer_path or variants:
        result |= compare(settings, variants, options, device)
    else:
        result |= measure_steps(settings, options, device)
        result |= measure_trial(settings, options, result["steps_per_second"])
    print(json.dumps(result) if options.json else describe(result))


def variant(namespace: Namespace, word: str) -> Settings:
    """Return the settings of the command line with those of `word`, NAME=VALUE[,NAME=VALUE ...], in place."""
    parser = Parser(prog="--against")
    parser.add_fields(Settings)
    try:
        changed = parser.parse_args([f"--{each}" for each in word.split(",")], Namespace(**vars(namespace)))
    except UserError as error:
        raise UserError(f"--against {word}: {error}") from None
    return from_namespace(Settings, changed)


if __name__ == "__main__":
    main("python -m trials.bench", command)

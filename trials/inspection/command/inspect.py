"""Inspect a trained network: each command reads the folder of a trial.

    python -m trials.inspect curves runs/dcgan-1a2b3c4d        # losses and score -> RUN/inspect/curves.png
    python -m trials.inspect progress runs/ID/trials/TRIAL     # sample sheets as a strip and as an animation
    python -m trials.inspect metrics RUN --samples 1000        # Inception Score, FID, KID; of real images too
    python -m trials.inspect histogram RUN                     # classes and confidence; has G collapsed?
    python -m trials.inspect features RUN --images 500         # a linear probe of D's features
    python -m trials.inspect walk RUN                          # from one z to another, on a line and a circle
    python -m trials.inspect arithmetic RUN --a 0 4 --b 1 --c 7 9     # z = a - b + c, numbers of walk
    python -m trials.inspect neighbours RUN                    # nearest training images; does it copy?

A command that a trial's system does not support says so in one line. Pictures go to RUN/inspect/ or to
--out, and replace earlier ones.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from judge.common.cli import Namespace, NonNegativeInt, Parser, PositiveInt, subcommands
from judge.common.errors import UserError
from judge.common.files import as_user_error, atomic_write
from trials.session import RunOptions
from trials.session.records import read_lines

if TYPE_CHECKING:  # each command imports what it needs when it runs: torch and pandas take seconds
    from trials.inspection.trained import TrainedModel

COLUMNS = 8  # images in a row of a picture
FRAME_MS = 400  # time that a frame of an animation is shown; the last frame is shown longer


def load_model(options: Namespace, trained: bool = True, takes_noise: bool = False) -> "TrainedModel":
    """Return the networks of the trial. Raises UserError if they should take noise, but take images."""
    from trials.inspection import adapters

    model = adapters.load(options.run, RunOptions(device=options.device).torch_device(), trained)
    if takes_noise and model.noise is None:
        raise UserError(f"{trial_title(options)}: its generator takes images, there is no noise to change")
    return model


def check_samples(options: Namespace) -> None:
    """Raise UserError if `--samples` is too few to measure."""
    from judge.score import MIN_IMAGES

    if options.samples < MIN_IMAGES:
        raise UserError(f"--samples {options.samples} is too few for a distance: give at least {MIN_IMAGES}")


def trial_title(options: Namespace) -> str:
    """Return the name of the trial for the title of a picture."""
    from trials.inspection.trained import read_trial

    record, _ = read_trial(options.run)
    return f"{record['system']}, {options.run.name}"


def save(options: Namespace, name: str, picture: Any) -> None:
    """Write a Pillow image, a list of them (an animation), or a Matplotlib figure to the file `name`."""
    from PIL import Image

    folder = options.out or options.run / "inspect"

    def write(part: Path) -> None:
        if isinstance(picture, list):
            durations = [FRAME_MS] * (len(picture) - 1) + [4 * FRAME_MS]
            picture[0].save(part, "WEBP", save_all=True, append_images=picture[1:], loop=0,
                            duration=durations)
        elif isinstance(picture, Image.Image):
            picture.save(part, "PNG")
        else:
            picture.savefig(part, format="png", dpi=110)

    with as_user_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / name, write)
    print(f"wrote {folder / name}", file=sys.stderr)


def announce(work: str) -> None:
    """Print what takes longer than two seconds; where there is a terminal, a progress bar follows."""
    print(f"{work} ...", file=sys.stderr, flush=True)


def print_result(options: Namespace, result: dict, *lines: str) -> None:
    """Print `result` as JSON with --json, and the lines otherwise."""
    print(json.dumps(result) if options.json else "\n".join(lines))


def curves(options: Namespace) -> None:
    """Plot losses and score over the steps, and print their first, smallest, largest and last values."""
    import pandas as pd

    from trials.inspection import figures

    title, reports = trial_title(options), read_lines(options.run / "stats.jsonl")
    if not reports:
        raise UserError(f"{options.run} has no report yet: each report adds a line to stats.jsonl")
    save(options, "curves.png", figures.plot_curves(reports, title))
    values = pd.DataFrame([report["losses"] | report["score"] for report in reports],
                          index=[report["step"] for report in reports])
    table = pd.DataFrame({"first": values.iloc[0], "least": values.min(), "at step": values.idxmin(),
                          "most": values.max(), "at step ": values.idxmax(), "last": values.iloc[-1]})
    print_result(options, {"reports": reports}, table.to_string(float_format="{:.3g}".format))


def progress(options: Namespace) -> None:
    """Show the outputs at each report: some in a strip, one below the other, and all as an animation."""
    from trials.inspection import figures
    from trials.inspection.trained import read_trial

    read_trial(options.run)
    early = {report["step"] for report in read_lines(options.run / "stats.jsonl") if report.get("early")}
    outputs = figures.read_outputs(options.run)
    scheduled = {step: sheet for step, sheet in outputs.items() if step not in early} or outputs
    frames = [figures.add_title(sheet, f"step {step:,}") for step, sheet in scheduled.items()]
    every = -(-len(frames) // options.most)  # from the last report back, at equal distances
    save(options, "progress.png", figures.stack(frames[::-1][::every][::-1]))
    save(options, "progress.webp", frames)


def measure(options: Namespace) -> None:
    """Print Inception Score, FID and KID of the outputs, and those of as many training images."""
    import pandas as pd

    from trials.inspection import metrics

    check_samples(options)
    model = load_model(options)
    announce(f"measuring {options.samples} outputs and as many real images")
    extractor = metrics.pretrained_inception() if options.features == "inception" else model.extractor
    result = metrics.measure_distances(model, extractor, options.samples)
    table = pd.DataFrame(result["table"]).T.astype({"images": int})
    print_result(
        options, result, f"in features of {result['features']}, against {result['real']} held-out images",
        table.to_string(), *(f"note: {text}" for text in result["warnings"]))


def histogram(options: Namespace) -> None:
    """Compare outputs with real images by class and confidence, and raise an alarm if G has collapsed."""
    import pandas as pd

    from trials.inspection import figures, metrics
    from trials.parts import sheets

    check_samples(options)
    model = load_model(options)
    announce(f"comparing {options.samples} outputs with held-out images")
    outputs, real = model.outputs(options.samples), model.real(options.samples, held_out=True)
    # A judge's classes, photograph, painting and neither, are not those of the data.
    has_modes = model.extractor.classes == model.data.classes
    diversity = metrics.measure_diversity(model.extractor, outputs, real, has_modes)
    save(options, "histogram.png", figures.plot_histogram(diversity, trial_title(options)))
    first, second, gaps = zip(*metrics.closest_pairs(outputs, COLUMNS))
    save(options, "pairs.png", figures.stack([
        figures.image_rows(outputs[list(first)], f"the pairs most alike of {len(outputs)} outputs: numbers, "
                           "RMS difference", COLUMNS, [str(number) for number in first]),
        sheets.captioned_grid(outputs[list(second)], COLUMNS, [
            f"{number}: {gap:.3f}" for number, gap in zip(second, gaps)]),
    ]))
    confidence = {name: sum(values) / len(values) for name, values in diversity["confidence"].items()}
    result = {"samples": len(outputs), "judged_by": model.extractor.name,
              **diversity, "confidence": confidence}
    table = pd.DataFrame({"confidence": confidence, "different in effect (Vendi)": diversity["vendi"],
                          "RMS difference of closest pair": diversity["closest"]})
    lines = [f"{len(outputs)} outputs by {model.extractor.name}, share in each class",
             pd.DataFrame(diversity["shares"]).to_string(float_format="{:.3f}".format),
             table.to_string(float_format="{:.3g}".format),
             *(f"note: {note}" for note in diversity["notes"])]
    if diversity["alarms"]:
        lines += [f"ALARM: {alarm}" for alarm in diversity["alarms"]]
    else:
        lines.append("no sign of mode collapse")
        if model.noise:  # no estimate beside an alarm that contradicts it
            lines.append("if the images of a pair in pairs.png look the same to you, G makes about "
                         f"{len(outputs) ** 2:,} different ones, and more if none do (Arora and Zhang 2017)")
    print_result(options, result, *lines)


def neighbours(options: Namespace) -> None:
    """Show outputs with their nearest training images, and test whether training images are copied."""
    import numpy as np

    from trials.inspection import figures, metrics

    model = load_model(options)
    outputs = model.outputs(options.samples)
    held_out = model.real(len(model.data.test_pixels), held_out=True)
    training = model.real(len(model.data.pixels), held_out=False)
    if max(options.show or [0]) >= len(outputs):
        raise UserError(f"there is no output {max(options.show)}: they are numbered 0 to {len(outputs) - 1}")
    announce(f"comparing {len(outputs)} outputs with {len(training)} training images")
    images = outputs, held_out, training
    spaces = {"pixels": [x.flatten(1) for x in images],
              "features": [model.extractor.extract(x)[1] for x in images]}
    found = metrics.find_copies(spaces)
    ratios = found["ratios"]
    numbers = options.show or sorted(range(len(outputs)), key=ratios.__getitem__)[:COLUMNS]
    shown = outputs[numbers]
    rows = [figures.image_rows(shown, "outputs: number, distance from training by that from held-out images",
                               len(shown), [f"{number}: {ratios[number]:.2f}" for number in numbers])]
    for name, (made, _, known) in spaces.items():
        distances, indices = metrics.nearest_neighbours(made[numbers], known, options.nearest)
        rows += [figures.image_rows(training[of_rank], f"training images nearest in {name}, rank {rank}: "
                                    "distance", len(shown), [f"{x:.3f}" for x in gaps.tolist()])
                 for rank, (of_rank, gaps) in enumerate(zip(indices.T, distances.T), 1)]
    save(options, "neighbours.png", figures.stack(rows))
    copies, by_chance = found["copies"], found["held_out_copies"]
    counts = {"outputs": len(outputs), "held_out": len(held_out), "training_images": len(training)}
    named = f": {' '.join(map(str, copies[:20]))}{' ...' if len(copies) > 20 else ''}" if copies else ""
    print_result(
        options, {**counts, "features": model.extractor.name, **found},
        f"{len(outputs)} outputs, {len(held_out)} held out, {len(training)} training images; features of "
        f"{model.extractor.name}",
        f"distance from the nearest training image by that from the nearest held-out one (median): outputs "
        f"{np.median(ratios):.2f}, held-out images {found['held_out_ratio']:.2f}",
        f"less than {metrics.COPY_RATIO} in pixels and in features: {len(copies)} of {len(outputs)} outputs, "
        f"{by_chance} of {found['checked']} held-out images",
        f"ALARM: outputs are copies of training images{named}" if found["alarm"]
        else "no sign of copied training images")


def features(options: Namespace) -> None:
    """Classify images linearly by the discriminator's features, by an untrained one's, and by pixels."""
    import pandas as pd

    from judge.labelled import describe_data, load_labelled
    from trials.inspection import metrics

    trained, untrained = load_model(options), load_model(options, trained=False)
    data = trained.labelled() if trained.labelled else trained.data
    if options.data:
        data = load_labelled(options.data, trained.data.shape[-1])
    if data.shape != trained.data.shape:
        raise UserError(f"--data {options.data} has images of {data.shape}, the trial {trained.data.shape}")
    announce(f"learning to classify {data.name} from three kinds of features, up to {options.images} images")
    result = metrics.probe_accuracies(trained.discriminator, untrained.discriminator, data, options.images)
    accuracies = pd.Series({name: value for name, value in result.items() if not name.endswith("_images")})
    print_result(
        options, {"data": data.name, "classes": list(data.classes), **result},
        f"accuracy on {result['test_images']} held-out images of {describe_data(data.name)} "
        f"({len(data.classes)} classes), by logistic regression of {result['training_images']}",
        accuracies.to_string(float_format="{:.4f}".format))


def walk(options: Namespace) -> None:
    """Walk from one z to the next on a line and on a great circle; show the outputs with their numbers."""
    import torch

    from trials.inspection import figures, latent
    from trials.parts import sheets

    model = load_model(options, takes_noise=True)
    if len(options.through) < 2:
        raise UserError("--through needs at least two outputs")
    z = model.noise(max(100, *(number + 1 for number in options.through)))
    shares = [f"{share:.2f}" for share in torch.linspace(0, 1, options.steps)]
    rows = [figures.image_rows(model.generate(points), f"{a} to {b}, {name}", options.steps, shares)
            for a, b in zip(options.through, options.through[1:])
            for name, points in latent.interpolate(z[a], z[b], options.steps).items()]
    save(options, "walk.png", figures.stack(rows))
    save(options, "outputs.png", sheets.captioned_grid(model.generate(z[:100]), 10, [*map(str, range(100))]))


def arithmetic(options: Namespace) -> None:
    """Show the output for z = a - b + c, where each is a mean over outputs, and outputs near it."""
    import torch

    from judge.common.rng import rng
    from trials.inspection import figures, latent

    model = load_model(options, takes_noise=True)
    chosen = {name: getattr(options, name) for name in "abc"}
    z = model.noise(max(map(max, chosen.values())) + 1)
    means = {name: z[numbers].mean(0) for name, numbers in chosen.items()}
    rows = [figures.image_rows(model.generate(torch.cat([z[numbers], means[name][None]])),
                               f"{name}: outputs and their mean", COLUMNS, [*map(str, numbers), "mean"])
            for name, numbers in chosen.items()]
    around = latent.neighbourhood(means["a"] - means["b"] + means["c"], 9, rng("around"))
    rows.append(figures.image_rows(model.generate(around), "a - b + c, and around it", 9,
                                   ["a - b + c", *[""] * 8]))
    save(options, "arithmetic.png", figures.stack(rows))


def one_number(default: int, text: str) -> dict:
    """Return the keywords of an option that is a number."""
    return {"type": PositiveInt, "default": default, "metavar": "N", "help": text}


def output_numbers(text: str, **keywords: Any) -> dict:
    """Return the keywords of an option that names outputs by their numbers."""
    return {"type": NonNegativeInt, "nargs": "+", "metavar": "OUTPUT", "help": text, **keywords}


DEVICE = {"--device": {"choices": ["auto", "cpu", "cuda"], "default": "auto",
                       "help": "where to compute; auto is the GPU if there is one"}}
SAMPLES = {"--samples": one_number(1000, "number of outputs; fewer if there are fewer images to translate")}
JSON = {"--json": {"action": "store_true", "help": "print the figures as JSON"}}
COMMANDS = {  # the function of each, and the options beside `run` and --out
    "curves": (curves, JSON),
    "progress": (progress, {"--most": one_number(8, "largest number of sheets in the strip")}),
    "metrics": (measure, DEVICE | SAMPLES | JSON | {
        "--features": {"choices": ["own", "inception"], "default": "own",
                       "help": "own: features of the trial's classifier or judge; inception: features of the "
                       "Inception network of published figures (needs torch-fidelity and its weights)"}}),
    "histogram": (histogram, DEVICE | SAMPLES | JSON),
    "features": (features, DEVICE | JSON | {
        "--images": one_number(1000, "number of training images with labels"),
        "--data": {"metavar": "DIR", "help": "labelled images in place of the trial's data: a folder with a "
                   "subfolder for each class, of the same size and colours"}}),
    "walk": (walk, DEVICE | {
        "--through": output_numbers("numbers of the outputs to walk through, in this order",
                                    default=[0, 1, 2, 3]),
        "--steps": one_number(10, "number of images from one output to the next")}),
    "arithmetic": (arithmetic, DEVICE | {
        f"--{name}": output_numbers(
            f"outputs whose mean z is {name}, by walk's numbers; the paper takes three", required=True)
        for name in "abc"}),
    "neighbours": (neighbours, DEVICE | SAMPLES | JSON | {
        "--show": output_numbers("numbers of the outputs in the picture, from 0; by default those nearest "
                                 "to training images", default=None),
        "--nearest": one_number(4, "number of neighbours of each output")}),
}  # fmt: skip


def add_options(parser: Parser, options: dict[str, dict]) -> None:
    """Add the options that every command has, and `options`, with the keywords of argparse."""
    parser.add_argument("run", type=Path, help="folder of a trial: runs/NAME or runs/ID/trials/TRIAL")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where pictures go, by default RUN/inspect")
    for name, keywords in options.items():
        parser.add_argument(name, **keywords)


def command_line() -> None:
    """Run the command that the command line names, and exit."""
    subcommands("python -m trials.inspect", __doc__, {
        name: (partial(add_options, options=options), function)
        for name, (function, options) in COMMANDS.items()})


if __name__ == "__main__":
    command_line()

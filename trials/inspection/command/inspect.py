"""Ways of looking at a trained network, each a small tool over the folder of a trial.

    python -m trials.inspect curves runs/dcgan-1a2b3c4d        # losses and score -> RUN/inspect/curves.png
    python -m trials.inspect progress runs/ID/trials/TRIAL     # sample sheets as a strip and as an animation
    python -m trials.inspect metrics RUN --samples 1000        # Inception Score, FID, KID; of real images too
    python -m trials.inspect histogram RUN                     # classes and confidence; has G collapsed?
    python -m trials.inspect features RUN --images 500         # the discriminator's features, read linearly
    python -m trials.inspect walk RUN                          # from one z to another, straight and round
    python -m trials.inspect arithmetic RUN --a 0 4 --b 1 --c 7 9     # z of a - b + c, as numbered by walk
    python -m trials.inspect neighbours RUN                    # nearest training images; does it copy?

Any trial's folder will do; what its system does not have is said in one line. Pictures go to RUN/inspect/
or to --out, and a second look replaces those of the first.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image

from judge.common.cli import Namespace, NonNegativeInt, Parser, PositiveInt, subcommands
from judge.common.errors import UserError
from judge.common.files import as_user_error, atomic_write
from judge.common.rng import rng
from judge.labelled import describe_data, load_labelled
from judge.score import MIN_IMAGES
from trials.inspection import adapters, figures, latent, metrics, trained
from trials.session.records import read_lines
from trials.session.session import RunOptions

SAMPLES = 1000  # outputs that are measured
COLUMNS = 8  # images in a row of a picture


def common(parser: Parser) -> None:
    parser.add_argument("run", type=Path, help="folder of a trial: runs/NAME or runs/ID/trials/TRIAL")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where pictures go, by default RUN/inspect")


def computing(parser: Parser) -> None:
    common(parser)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                        help="where to compute; auto is the GPU where there is one")


def measuring(parser: Parser) -> None:
    computing(parser)
    samples_option(parser)
    json_option(parser)


def samples_option(parser: Parser) -> None:
    parser.add_argument("--samples", type=PositiveInt, default=SAMPLES, metavar="N",
                        help="outputs to measure, fewer where there are no more photographs to paint")


def json_option(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def loaded(options: Namespace, trained: bool = True) -> trained.TrainedModel:
    """What the trial in options.run has trained."""
    return adapters.load(options.run, RunOptions(device=options.device).torch_device(), trained)


def write(options: Namespace, name: str, picture: Any) -> None:
    """A picture of Pillow's, a list of them (an animation), or a figure of Matplotlib's, to a file."""
    folder = options.out or options.run / "inspect"
    file = folder / name

    def save(part: Path) -> None:
        if isinstance(picture, list):
            figures.animate(picture, part, file.suffix[1:])
        elif isinstance(picture, Image.Image):
            picture.save(part, "PNG")
        else:
            picture.savefig(part, format="png", dpi=110)

    with as_user_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(file, save)
    print(f"wrote {file}", file=sys.stderr)


def say(options: Namespace, figures: dict, text: str) -> None:
    """The figures as JSON, or in words."""
    print(json.dumps(figures) if options.json else text)


def named(options: Namespace) -> str:
    """The trial in a picture's title."""
    record, _ = trained.system_of(options.run)
    return f"{record['system']}, {options.run.name}"


# ---------------------------------------------------------------------------------------------
# What the trial left behind


def curves_options(parser: Parser) -> None:
    common(parser)
    json_option(parser)


def curves(options: Namespace) -> None:
    """Losses of generator and discriminator, and the score by parts, as a picture and a table."""
    title, lines = named(options), read_lines(options.run / "stats.jsonl")
    if not lines:
        raise UserError(f"{options.run} has no report yet: stats.jsonl grows by a line at each")
    write(options, "curves.png", figures.curves(lines, title))
    table = pd.DataFrame([line["losses"] | line["score"] for line in lines],
                         index=[line["step"] for line in lines])
    table = pd.DataFrame({"first": table.iloc[0], "least": table.min(), "at step": table.idxmin(),
                          "most": table.max(), "at step ": table.idxmax(), "last": table.iloc[-1]})
    say(options, {"reports": lines}, table.to_string(float_format="{:.4f}".format))


def progress_options(parser: Parser) -> None:
    common(parser)
    parser.add_argument("--most", type=PositiveInt, default=8, metavar="N", help="sheets in the strip")


def progress(options: Namespace) -> None:
    """What the trial made at each report: a strip of some, one below the other, an animation of all."""
    named(options)
    found = {step: figures.titled(sheet, f"step {step}")
             for step, sheet in figures.samples(options.run).items()}
    steps = list(found)[::-1]  # the last one is always there
    count = min(options.most, len(steps))
    chosen = [steps[round(at * (len(steps) - 1) / max(1, count - 1))] for at in range(count)]
    write(options, "progress.png", figures.stacked([found[step] for step in reversed(chosen)]))
    write(options, "progress.webp", list(found.values()))


# ---------------------------------------------------------------------------------------------
# Outputs


def metrics_options(parser: Parser) -> None:
    measuring(parser)
    parser.add_argument("--features", choices=["own", "inception"], default="own",
                        help="own: of the trial's classifier or judge; inception: of the network of "
                        "published figures (takes torch-fidelity and its weights)")


def measure(options: Namespace) -> None:
    """Inception Score, FID and KID of outputs, beside what as many training images get."""
    model = loaded(options)
    enough(options.samples)
    extractor = metrics.pretrained_inception() if options.features == "inception" else model.extractor
    found = metrics.metrics(model, extractor, options.samples)
    table = pd.DataFrame(found["table"]).T.astype({"images": int})
    said = [f"in features of {found['features']}, against {found['real']} held-out images", table.to_string()]
    say(options, found, "\n".join(said + [f"note: {warned}" for warned in found["warnings"]]))


def enough(samples: int) -> None:
    """Refuse what is too few to measure."""
    if samples < MIN_IMAGES:
        raise UserError(f"--samples {samples}: a distance takes at least {MIN_IMAGES}")


def histogram(options: Namespace) -> None:
    """Outputs by class and by confidence, beside real images; an alarm where G has collapsed."""
    model = loaded(options)
    enough(options.samples)
    made = model.outputs(options.samples)
    found = metrics.measure_diversity(model.extractor, made, model.real(options.samples, held_out=True))
    write(options, "histogram.png", figures.histogram(found, named(options)))
    pairs = metrics.closest_pairs(made, COLUMNS)
    write(options, "pairs.png", figures.stacked([
        figures.row(made[[pair[at] for pair in pairs]], title, COLUMNS)
        for at, title in enumerate([f"the pairs most alike of {len(made)} outputs", ""])]))
    table = pd.DataFrame(found.shares, index=list(found.names))
    mean = {name: sum(values) / len(values) for name, values in found.confidence.items()}
    values = {"samples": len(made), "judged_by": model.extractor.name, "shares": table.to_dict(),
               "confidence": mean, "vendi": found.vendi, "closest": found.closest, "alarms": found.alarms}
    rows = pd.DataFrame({"confidence": mean, "different in effect (Vendi)": found.vendi,
                         "closest pair": found.closest})
    alarm = [f"ALARM, mode collapse: {alarm}" for alarm in found.alarms] or ["no sign of a mode collapse"]
    birthday = [f"if two in a pair of pairs.png are the same, G has some {len(made) ** 2} images in all"]
    say(options, values, "\n".join([
        f"{len(made)} outputs by {model.extractor.name}, share in each class",
        table.to_string(float_format="{:.3f}".format), rows.to_string(float_format="{:.4f}".format),
        *(birthday if model.noise else []), *alarm]))


def neighbours_options(parser: Parser) -> None:
    measuring(parser)
    parser.add_argument("--show", type=NonNegativeInt, nargs="+", metavar="OUTPUT",
                        default=list(range(COLUMNS)), help="outputs in the picture, by number, from 0")
    parser.add_argument("--nearest", type=PositiveInt, default=4, metavar="N", help="neighbours of each")


def neighbours(options: Namespace) -> None:
    """Outputs with the training images nearest to them, and whether training images are copied."""
    model = loaded(options)
    made, held_out = model.outputs(options.samples), model.real(options.samples, held_out=True)
    training = model.real(len(model.data.pixels), held_out=False)
    shown = made[valid(options.show, len(made))]
    spaces = {"pixels": lambda x: x.flatten(1), "features": lambda x: model.extractor.extract(x)[1]}
    rows, table = [], {}
    for name, space in spaces.items():
        known = space(training)
        _, found = metrics.nearest_neighbours(space(shown), known, options.nearest)
        rows += [figures.row(training[of_rank], f"nearest in {name}, {rank + 1}", len(shown))
                 for rank, of_rank in enumerate(found.T)]
        table[name] = metrics.copying_test(space(made), space(held_out), known)
    write(options, "neighbours.png", figures.stacked([figures.row(shown, "outputs", len(shown)), *rows]))
    copied = [name for name, row in table.items() if row["z"] < metrics.COPYING_Z]
    verdict = (f"ALARM: outputs lie nearer to training images than held-out images do, in {', '.join(copied)}"
               if copied else "no sign of copied training images")
    counts = {"outputs": len(made), "held_out": len(held_out), "training_images": len(training)}
    words = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    say(options, {**counts, "features": model.extractor.name, "copying": table}, "\n".join([
        f"{words}; features of {model.extractor.name}",
        "share of outputs further from training images than a held-out image is, and Z_U (Meehan et al. "
        "2020; copies under -3)", pd.DataFrame(table).T.to_string(float_format="{:.3f}".format), verdict]))


def valid(numbers: list[int], count: int) -> list[int]:
    """`numbers`, if there are outputs of them all."""
    if wrong := [number for number in numbers if number >= count]:
        raise UserError(f"there is no output {wrong[0]}: they are numbered 0 to {count - 1}")
    return numbers


# ---------------------------------------------------------------------------------------------
# Discriminator


def features_options(parser: Parser) -> None:
    computing(parser)
    json_option(parser)
    parser.add_argument("--images", type=PositiveInt, default=1000, metavar="N",
                        help="training images with labels")
    parser.add_argument("--data", metavar="DIR", help="labelled images instead of the trial's own: a folder "
                        "with a subfolder for each class, of the same size and colours")


def features(options: Namespace) -> None:
    """The frozen discriminator's features read by a linear classifier, against pixels and no training."""
    trained, untrained = loaded(options), loaded(options, trained=False)
    own = trained.data
    if options.data:
        data = load_labelled(options.data, own.shape[-1])
    else:
        data = trained.labelled() if trained.labelled else own
    if data.shape != own.shape:
        raise UserError(f"--data {options.data}: images of {data.shape}, the trial's are {own.shape}")
    found = metrics.probe_accuracies(trained.discriminator, untrained.discriminator, data, options.images)
    accuracies = {name: value for name, value in found.items() if not name.endswith("_images")}
    say(options, {"data": data.name, "classes": list(data.classes), **found}, "\n".join([
        f"accuracy on {found['test_images']} held-out images of {describe_data(data.name)} "
        f"({len(data.classes)} classes), by logistic regression of {found['training_images']}",
        pd.Series(accuracies).to_string(float_format="{:.4f}".format)]))


# ---------------------------------------------------------------------------------------------
# Noise


def walk_options(parser: Parser) -> None:
    computing(parser)
    parser.add_argument("--through", type=NonNegativeInt, nargs="+", default=[0, 1, 2, 3], metavar="OUTPUT",
                        help="outputs to go from one to the next of, by number")
    parser.add_argument("--steps", type=PositiveInt, default=10, metavar="N",
                        help="images from one to the next")


def walks(options: Namespace) -> None:
    """From one z to another, along a line and along a great circle; and outputs with their numbers."""
    model = noisy(options)
    if len(options.through) < 2:
        raise UserError("--through takes at least two outputs")
    z = model.noise(max(100, *(number + 1 for number in options.through)))
    rows = []
    for a, b in zip(options.through, options.through[1:]):
        for name, points in latent.interpolate(z[a], z[b], options.steps).items():
            rows.append(figures.row(model.generate(points), f"{a} to {b}, {name}", options.steps))
    write(options, "walk.png", figures.stacked(rows))
    write(options, "outputs.png", figures.numbered(model.generate(z[:100])))


def arithmetic_options(parser: Parser) -> None:
    computing(parser)
    for name in "abc":
        parser.add_argument(f"--{name}", type=NonNegativeInt, nargs="+", required=True, metavar="OUTPUT",
                            help="outputs whose mean z this is, by number (see walk); the paper takes three")


def arithmetic(options: Namespace) -> None:
    """What G makes of z of a - b + c, each a mean over outputs, and of what lies around it."""
    model = noisy(options)
    chosen = {name: getattr(options, name) for name in "abc"}
    z = model.noise(max(map(max, chosen.values())) + 1)
    means = {name: z[numbers].mean(0) for name, numbers in chosen.items()}
    rows = [figures.row(model.generate(torch.cat([z[numbers], means[name][None]])),
                         f"{name}: {' '.join(map(str, numbers))}, their mean", COLUMNS)
            for name, numbers in chosen.items()]
    total = latent.neighbourhood(means["a"] - means["b"] + means["c"], 9, rng("around"))
    rows.append(figures.row(model.generate(total), "a - b + c, and around it", 9))
    write(options, "arithmetic.png", figures.stacked(rows))


def noisy(options: Namespace) -> trained.TrainedModel:
    """What the trial has trained, if that makes images of noise."""
    model = loaded(options)
    if model.noise is None:
        raise UserError(f"{named(options)}: its generator is given images, there is no noise to walk through")
    return model


def command_line() -> None:
    """Carry out the tool that the command line names, and exit."""
    subcommands("python -m trials.inspect", __doc__, {
        "curves": (curves_options, curves),
        "progress": (progress_options, progress),
        "metrics": (metrics_options, measure),
        "histogram": (measuring, histogram),
        "features": (features_options, features),
        "walk": (walk_options, walks),
        "arithmetic": (arithmetic_options, arithmetic),
        "neighbours": (neighbours_options, neighbours),
    })


if __name__ == "__main__":
    command_line()

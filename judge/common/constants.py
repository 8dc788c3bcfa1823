"""Constants of several files, and those that command lines need before torch is imported."""

from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the repository: trials and NNI run here
LUMA = (0.299, 0.587, 0.114)  # weights of R, G and B in luma, Rec. ITU-R BT.601
STAND_IN = ".stand-in"  # name of the empty file that marks a folder as the built-in sample
SIZES = {"sketch": 64, "draft": 128, "paper": 256}  # side in pixels of the square images, by preset
DEFAULT_JUDGE = "models/judge.pt"
DEFAULT_FORMULA = "style-and-scene"  # of the score, in judge.score.FORMULAS
DATA = Path("data")  # folder of the data sets that have a name
DIGITS, MNIST, FOLDER = "digits", "mnist", "folder"  # kinds of labelled data

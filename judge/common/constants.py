"""Constants that image loading and the built-in sample share."""

LUMA = (0.299, 0.587, 0.114)  # weights of R, G and B in luma, Rec. ITU-R BT.601
STAND_IN = ".stand-in"  # name of the empty file that marks a folder as the built-in sample

"""What NNI runs: one program per system, each also a plain command."""

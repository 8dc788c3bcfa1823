"""Searches: experiment files (YAML), the commands that run and read them, NNI's tuner and assessor."""

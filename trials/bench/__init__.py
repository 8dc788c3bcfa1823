"""Benchmark of CycleGAN training."""

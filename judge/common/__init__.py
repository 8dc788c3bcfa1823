"""Shared by all programs: command lines, files, the cache, random numbers, devices."""

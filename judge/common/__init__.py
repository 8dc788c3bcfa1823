"""What the other rooms build on: command line, files, cache, random numbers, devices."""

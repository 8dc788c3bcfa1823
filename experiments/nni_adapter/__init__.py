"""Everything that knows NNI 2.10.1: its files, ports, processes and quirks."""

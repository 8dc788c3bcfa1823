"""A clean experiment: does searching help a CycleGAN, and does TPE? PROTOCOL.md says what is done."""

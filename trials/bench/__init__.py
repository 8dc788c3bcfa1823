"""How fast a CycleGAN trains here."""

"""Ways of looking at a trained network."""

"""How a search runs: one YAML a search, and what to do around it."""

"""Results of experiments as tables and pages."""

"""The training of each system: its model, losses and steps. trials/NAME.py has its settings and command."""

"""A viewer compares sample sheets, and the weights of the score are fitted to the votes."""

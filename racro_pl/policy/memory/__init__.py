"""Where a step's memory goes, computed from the model's configuration."""

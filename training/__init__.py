"""Training: datasets, losses and the stages that make a model."""

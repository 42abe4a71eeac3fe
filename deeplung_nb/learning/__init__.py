"""Training, prediction and measurement."""

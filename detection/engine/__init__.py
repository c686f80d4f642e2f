"""Training, evaluating and predicting with a detector."""

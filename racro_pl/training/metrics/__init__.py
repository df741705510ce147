"""What a run measures: each step, accuracy on held-out questions, scores on benchmarks."""

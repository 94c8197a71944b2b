"""Coverage-guided fuzzing, and its corpus."""

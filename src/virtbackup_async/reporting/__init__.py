"""What becomes of events: outcomes, sentences, JSON lines, logs, metrics. Draws nothing."""

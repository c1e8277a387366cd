"""Turns events into outcomes, sentences, JSON lines, logs and metrics; draws nothing."""

"""The public API: every command as a method, for programs with an event loop of their own."""

"""One module for each command: its declaration, and `run`, which imports what it needs."""

"""Values of any type, for people: summaries, and files that the editor shows."""

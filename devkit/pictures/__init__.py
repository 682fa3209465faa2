"""Pictures of the real editor: every node for its help page, every example for the templates."""

"""From the names in a file to the modules of a model, and which model a file is for."""

"""Workflows as files, as the editor's graphs, and as prompts for the server."""

"""Conversations, prompts and tokens as text."""

"""Images and a prompt to text with Qwen vision-language models."""

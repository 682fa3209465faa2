"""From keys and values to the next token: the language model, its caches, and sampling."""

"""Services and servers that comfyui-llm-toolkit asks, as our nodes are told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .rules import NotMigratable


@dataclass(frozen=True)
class Service:
    """A service on the web with the OpenAI protocol."""

    address: str
    variable: str
    """The environment variable that holds its key."""
    asked: bool = True
    """Whether that pack's text nodes could ask it."""


_GOOGLE = Service("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY")
SERVICES: Mapping[str, Service] = {
    "openai": Service("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "gemini": _GOOGLE,
    "google": _GOOGLE,
    "anthropic": Service("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "groq": Service("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "deepseek": Service("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "openrouter": Service("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "mistral": Service("https://api.mistral.ai/v1", "MISTRAL_API_KEY", asked=False),
}

# Servers on the user's own machines, and whether that pack's text nodes could ask them.
SERVERS: Mapping[str, bool] = {
    "ollama": True,
    "llamacpp": False,
    "lmstudio": False,
    "textgen": False,
    "kobold": False,
    "vllm": False,
}
LOCAL = ("transformers", "hf", "local")

# Models of a service that are chosen where none is named.
DEFAULT_MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-3-opus-20240229"}


def key_variable(provider: str) -> str:
    """The environment variable for a provider's key.

    Raises:
        NotMigratable: it is not asked for a key.
    """
    name = provider.lower()
    if name in SERVERS or name in LOCAL:
        raise NotMigratable(f"'{provider}' runs on this machine, where no key is needed")
    found = SERVICES.get(name)
    return f"{name.upper()}_API_KEY" if found is None else found.variable

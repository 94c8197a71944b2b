"""
The config: ``broker.toml`` and ``broker.d/*.toml``, typed, frozen and complete.

``load`` reads it; ``broker.config.changes``, ``.advice`` and ``.effective`` say
what became of it, for people. No secret ever stands in it, and this package
refuses to quote what stands there instead.
"""

from broker.config.loader import load, load_file
from broker.config.model import BackendConfig, Config, SecretConfig, ServerConfig
from broker.config.problems import InvalidConfigError, Location, Problem
from broker.config.replacing import RotateConfig
from broker.config.template import Reference, Template

__all__ = [
    "BackendConfig",
    "Config",
    "InvalidConfigError",
    "Location",
    "Problem",
    "Reference",
    "RotateConfig",
    "SecretConfig",
    "ServerConfig",
    "Template",
    "load",
    "load_file",
]

"""
Which clients there are, in which form each keeps a server, and where.

This module refuses to do anything. docs/clients.md says the same in words, and
where it is known from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Shape = Literal["mcpServers", "servers", "context_servers", "opencode", "codex", "continue", "goose", "librechat"]
"""What stands around and inside of a server's entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """
    One client.

    Attributes:
        title: what its makers call it.
        shape: the form of an entry.
        files: where it belongs, the usual place first.
        typed: whether the entry says ``"type": "stdio"``.
        again: what makes it read its config again.

    """

    title: str
    shape: Shape
    files: tuple[str, ...]
    typed: bool = False
    again: str = "restart it"


_CODE: Final = ("~/.config/Code/User", "~/Library/Application Support/Code/User", r"%APPDATA%\Code\User")
_CLINE: Final = "globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json"
_ROO: Final = "globalStorage/rooveterinaryinc.roo-cline/settings/mcp_settings.json"

CLIENTS: Final[Mapping[str, Client]] = MappingProxyType(
    {
        "claude-code": Client(
            title="Claude Code",
            shape="mcpServers",
            files=("~/.claude.json", ".mcp.json in a project"),
            typed=True,
            again="start a new session",
        ),
        "claude-desktop": Client(
            title="Claude Desktop",
            shape="mcpServers",
            files=(
                "~/.config/Claude/claude_desktop_config.json",
                "~/Library/Application Support/Claude/claude_desktop_config.json (macOS)",
                r"%APPDATA%\Claude\claude_desktop_config.json (Windows)",
            ),
        ),
        "cursor": Client(
            title="Cursor",
            shape="mcpServers",
            files=("~/.cursor/mcp.json", ".cursor/mcp.json in a project"),
            typed=True,
        ),
        "vscode": Client(
            title="VS Code",
            shape="servers",
            files=(
                f"{_CODE[0]}/mcp.json",
                f"{_CODE[1]}/mcp.json (macOS)",
                rf"{_CODE[2]}\mcp.json (Windows)",
                ".vscode/mcp.json in a project",
            ),
            typed=True,
            again='choose "MCP: List Servers" and start it',
        ),
        "windsurf": Client(title="Windsurf", shape="mcpServers", files=("~/.codeium/windsurf/mcp_config.json",)),
        "zed": Client(
            title="Zed",
            shape="context_servers",
            files=("~/.config/zed/settings.json", ".zed/settings.json in a project"),
            again="save the file",
        ),
        "codex": Client(
            title="Codex",
            shape="codex",
            files=("~/.codex/config.toml", ".codex/config.toml in a project"),
        ),
        "gemini": Client(
            title="Gemini CLI",
            shape="mcpServers",
            files=("~/.gemini/settings.json", ".gemini/settings.json in a project"),
        ),
        "continue": Client(
            title="Continue",
            shape="continue",
            files=("~/.continue/config.yaml", ".continue/mcpServers/NAME.yaml in a project"),
        ),
        "cline": Client(title="Cline", shape="mcpServers", files=tuple(f"{each}/{_CLINE}" for each in _CODE[:2])),
        "roo": Client(
            title="Roo Code",
            shape="mcpServers",
            files=(*(f"{each}/{_ROO}" for each in _CODE[:2]), ".roo/mcp.json in a project"),
        ),
        "goose": Client(title="Goose", shape="goose", files=("~/.config/goose/config.yaml",)),
        "librechat": Client(title="LibreChat", shape="librechat", files=("librechat.yaml",)),
        "junie": Client(
            title="JetBrains Junie",
            shape="mcpServers",
            files=("~/.junie/mcp/mcp.json", ".junie/mcp/mcp.json in a project"),
        ),
        "lm-studio": Client(title="LM Studio", shape="mcpServers", files=("~/.lmstudio/mcp.json",)),
        "opencode": Client(
            title="opencode",
            shape="opencode",
            files=("~/.config/opencode/opencode.json", "opencode.json in a project"),
        ),
        "kiro": Client(title="Kiro", shape="mcpServers", files=("~/.kiro/settings/mcp.json",)),
        "amazon-q": Client(title="Amazon Q", shape="mcpServers", files=("~/.aws/amazonq/mcp.json",)),
        "antigravity": Client(
            title="Antigravity", shape="mcpServers", files=("~/.gemini/antigravity/mcp_config.json",)
        ),
        "inspector": Client(
            title="MCP Inspector",
            shape="mcpServers",
            files=("~/.mcp-inspector/mcp.json", "any file, with --config FILE --server NAME"),
            typed=True,
        ),
    }
)
"""Every client that an entry can be made for, by the name to type."""

ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "claude": "claude-code",
        "code": "vscode",
        "vs-code": "vscode",
        "visual-studio-code": "vscode",
        "gemini-cli": "gemini",
        "codex-cli": "codex",
        "roo-code": "roo",
        "lmstudio": "lm-studio",
        "amazonq": "amazon-q",
        "mcp-inspector": "inspector",
    }
)
"""Other names that people type."""

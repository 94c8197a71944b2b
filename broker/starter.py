"""
The config that ``init`` writes: short, true, and with the next step in it.

Pure. It refuses to grant anything: what a server may have, its owner writes.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from broker.paths import Mode

_HEAD: Final = """\
# Which MCP servers there are, and which secrets they get. No secret ever stands in this file.
# `mcp-broker check` says what it means and what is wrong with it.

# The broker's own store of secrets, sealed with the key that is here:
[backends.local]
type = "sealed"
"""

_DEFAULT_KEY: Final = """\
# (The file master.key in the broker's state directory. It could be another: key = { file = "PATH" })
"""

_USER: Final = """
# 1. Store a secret (it asks, without echo):
#        mcp-broker secret set github
#
# 2. Name the server that gets it, here or in a file of its own in broker.d/:
#
# [servers.github]
# command = ["npx", "-y", "@modelcontextprotocol/server-github"]
# env.GITHUB_PERSONAL_ACCESS_TOKEN = "{github}"
#
# 3. Let the MCP client start it, with this as the command in the client's config:
#        mcp-broker exec github
"""

_SYSTEM: Final = """
# 1. Store a secret (it asks, without echo):
#        mcp-broker secret set --system github
#
# 2. Name the server that gets it, and the unit that it runs in. Nobody else gets it:
#
# [servers.github]
# command = ["/usr/bin/npx", "-y", "@modelcontextprotocol/server-github"]
# selectors = ["unit:mcp-github.service"]
# env.GITHUB_PERSONAL_ACCESS_TOKEN = "{github}"
#
# 3. Let that unit start it:
#        ExecStart=/opt/mcp-broker/bin/mcp-broker exec --system github
"""


def starting_config(key: Mapping[str, Any], mode: Mode) -> str:
    """Return the text of a first ``broker.toml``, with the master key where ``key`` says, or where it is anyway."""
    # JSON strings and booleans are TOML's, too.
    inside = ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in key.items())
    line = f"key = {{ {inside} }}\n" if inside else _DEFAULT_KEY
    return f"{_HEAD}{line}{_USER if mode == 'user' else _SYSTEM}"

// The official client for Node: starts a server, asks for its tools, calls some, and says what it saw as JSON.
//
//     node node_client.mjs DIRECTORY-OF-PACKAGES '{"command": …, "args": […], "mode": …, "calls": [{"name": …, "arguments": …}]}'

import { createRequire } from "node:module";

const [packages, wanted] = process.argv.slice(2);
const require = createRequire(`${packages}/`);
const { Client } = require("@modelcontextprotocol/client");
const { StdioClientTransport } = require("@modelcontextprotocol/client/stdio");

const { command, args, mode, calls } = JSON.parse(wanted);
const client = new Client({ name: "node-client", version: "1" }, { versionNegotiation: { mode } });
const seen = { tools: [], said: [] };
try {
  await client.connect(new StdioClientTransport({ command, args, stderr: "ignore" }));
  seen.version = client.getNegotiatedProtocolVersion?.() ?? null;
  seen.tools = (await client.listTools()).tools.map((tool) => tool.name);
  for (const call of calls) {
    const result = await client.callTool(call);
    seen.said.push(result.content.map((part) => part.text).join(""));
  }
} catch (error) {
  seen.error = { code: error.code, message: error.message };
}
await client.close();
console.log(JSON.stringify(seen));

"""
The steps of the tour: what each does, what it shows, and how it knows that it is true.

Each takes the play and returns the sentence that has been seen to hold. They
refuse to show anything that was not checked.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from broker.demo import server, service
from broker.demo.play import Play, StepFailedError

HERE: Final = "--dir ."

SERVERS: Final = """\
[servers.notes]
command = {command}
env.NOTES_TOKEN = "{{notes}}"

[servers.ledger]
like = "notes"  # but for somebody else
selectors = ["uid:{stranger}"]
"""

CLIENT: Final = """\
{{
  "mcpServers": {{
    "notes": {{
      "command": {command},
      "args": ["exec", "notes", "--dir", {where}]
    }}
  }}
}}
"""

BY_HAND: Final = '{"jsonrpc":"2.0","id":1,"method":"tools/list"}'

STRANGERS: Final = (54321, 54322)
"""Uids of somebody else: a uid needs no name. Not nobody's, which is also what the kernel calls who it hides."""


def stranger() -> int:
    """Return a uid that is not ours."""
    return next(uid for uid in STRANGERS if uid != os.getuid())


def initialise(play: Play) -> str:
    """Make the directory a broker's."""
    play.screen.command(play.stage.way_in)
    play.run(f"mcp-broker init --yes {HERE}")
    key = play.stage.directory / "state/master.key"
    play.expect("the master key is readable for others", key.stat().st_mode & 0o077 == 0)
    return "a config, a state directory and a master key that only you can read"


def serve(play: Play) -> str:
    """Start the broker."""
    play.screen.command(f"mcp-broker serve {HERE} 2>> broker.log &")
    pid = play.stage.serve()
    play.run(f"mcp-broker status {HERE}")
    play.expect("the broker is not well", play.ask("status")["healthy"] is True)
    return f"the broker runs, as process {pid}"


def store(play: Play) -> str:
    """Store the secret."""
    play.screen.say("The notes service gave you a token. It goes in on stdin: no command line ever has it.")
    play.run(f'printf %s "$TOKEN" | mcp-broker secret set notes {HERE}')
    stored = {row["name"]: row["stored"] for row in play.ask("secret/list")["secrets"]}
    play.expect("the secret is not stored", stored == {"notes": True})
    return "the token is in the store, sealed"


def configure(play: Play) -> str:
    """Say which server gets it."""
    command = json.dumps([sys.executable, "-I", server.__file__, str(play.stage.directory / "notes.sock")])
    text = SERVERS.format(command=command, stranger=stranger())
    play.screen.say("The broker's config says which server gets it. A reference is the grant: nobody else has it.")
    play.write("config/broker.d/notes.toml", text, "toml")
    play.screen.say("The broker notices by itself that it has changed. Who does not want to wait for that:")
    play.run(f"mcp-broker reload {HERE}")
    play.expect(
        "the servers are not there", {"notes", "ledger"} == {r["name"] for r in play.ask("server/list")["servers"]}
    )
    return "the new config is in force, as a whole"


def connect(play: Play) -> str:
    """Say it to the client."""
    command, where = json.dumps(str(play.stage.program)), json.dumps(str(play.stage.directory))
    play.screen.say("And this is all that the MCP client is told:")
    play.write("client.json", CLIENT.format(command=command, where=where), "json")
    play.run(f"mcp-broker lease list {HERE}")
    play.expect("there is a lease before anybody asked", not play.leases())
    return "no server runs yet, and nothing is out"


def use(play: Play) -> str:
    """Use the server as a client does."""
    entry = play.entry()
    play.screen.say(f"The client starts what its config says ({play.speaker}) and calls the server's tool.")
    play.screen.command(shlex.join(["mcp-broker", *entry["args"]]))
    errors = play.held.enter_context((play.stage.directory / "server.log").open("w"))
    play.session = play.held.enter_context(play.opener(entry["command"], entry["args"], errors))
    play.screen.output(f"← protocol {play.session.version}")
    play.expect("the server has other tools", list(play.session.tools()) == [server.TOOL])
    play.expect("the service does not know the token", play.call(server.TOOL) == service.NOTES)
    play.expect("the service was not asked", play.notes.asked == 1)
    return "the tool works: the service knows the token"


def hold(play: Play) -> str:
    """Show the lease."""
    play.run(f"mcp-broker lease list {HERE}")
    leases = play.leases()
    play.expect("there is not one lease", len(leases) == 1)
    play.server, play.accessor = leases[0]["pid"], leases[0]["accessor"]
    name = Path(f"/proc/{play.server}/cmdline")
    running = name.read_bytes() if name.exists() else server.__file__.encode()
    play.expect("the lease hangs on another process", server.__file__.encode() in running)
    return f"one lease, and it hangs on the server's own process, {play.server}"


def look_for_it(play: Play) -> str:
    """Look for the token in every file and every process."""
    play.screen.say("Is the token in a file here, in the argument of a process, in an environment?")
    pattern = "printf '%s\\n' \"$TOKEN\" | grep"
    files = play.run(f"{pattern} -rlFf - .", status=1)
    play.expect("the token stands in a file", not files.output)
    if not Path("/proc/self/environ").exists():
        return "it stands in no file"
    # Processes end while grep looks at them, and those of others are closed to it: its exit status says nothing here.
    arguments = play.run(f"{pattern} -lsFf - /proc/[0-9]*/cmdline; true")
    play.expect("the token is an argument of a process", not arguments.output)
    environments = play.run(f"{pattern} -lsFf - /proc/[0-9]*/environ; true")
    expected = f"/proc/{play.server}/environ"
    play.expect("the token is in another environment", environments.output.split() == [expected])
    play.screen.say("What runs as you can read it there: in system mode a server has a user of its own.")
    return "in one place only: the environment of the server that it is for"


def ask_for_another(play: Play) -> str:
    """Ask for a server that nobody configured."""
    play.screen.say("A client shows nothing of a server that ends at once. So `exec` answers, and says what to do:")
    told = play.run(f"echo '{BY_HAND}' | mcp-broker exec calendar {HERE}", status=3)
    play.expect("the client is not told", '"code":"denied"' in told.output)
    play.run(f"mcp-broker explain calendar {HERE}")
    play.expect("it would be allowed", play.ask("explain", server="calendar")["allowed"] is False)
    return "what no config names is denied"


def be_the_wrong_one(play: Play) -> str:
    """Ask for a server that is somebody else's."""
    play.run(f"mcp-broker exec ledger {HERE}", status=3)
    play.run(f"mcp-broker explain --last {HERE}")
    explained = play.ask("explain", last=True)
    play.expect("it was refused for another reason", explained["wants"] == [f"uid:{stranger()}"])
    play.expect("something is out for it", {lease["server"] for lease in play.leases()} == {"notes"})
    return "who asks is what the kernel says, and the config names somebody else"


def be_somebody_else(play: Play) -> str:
    """Ask as another user, which only root can try."""
    uid, becoming = stranger(), Path(__file__).with_name("stranger.py")
    play.screen.say("Another user of this machine does not even get in:")
    play.screen.command(f"sudo -u '#{uid}' mcp-broker exec notes {HERE}")
    words = [sys.executable, "-I", str(becoming), str(uid), "notes", "--dir", str(play.stage.directory)]
    done = play.stage.run(shlex.join(words), token=play.notes.token)
    play.screen.output(done.output)
    play.expect("another user was not refused", done.status == 3)  # noqa: PLR2004 - denied
    return f"uid {uid} is refused"


def restart(play: Play) -> str:
    """Kill the broker, start it again, go on."""
    play.screen.say("The broker crashes and is started again. The MCP session stays open all the while.")
    before = play.ask("status")["pid"]
    play.screen.command(f"kill -9 {before}\nmcp-broker serve {HERE} 2>> broker.log &")
    play.stage.kill()
    after = play.stage.serve()
    play.call(server.TOOL)
    play.run(f"mcp-broker lease list {HERE}")
    leases = [(lease["accessor"], lease["pid"]) for lease in play.leases()]
    play.expect("the broker is the same process", before != after)
    play.expect("the lease is another one", leases == [(play.accessor, play.server)])
    return "same session, same server, same lease: a restart ends nothing"


def close(play: Play) -> str:
    """Close the client."""
    play.screen.say("The client closes the session. The server ends, and its lease with it.")
    play.held.close()
    play.wait_for("the lease outlives its process", lambda: not play.leases())
    play.run(f"mcp-broker lease list {HERE}")
    return "nothing is out any more"


def verify(play: Play) -> str:
    """Verify the audit log."""
    play.screen.say("All of that is on record: every release was on disk before it happened.")
    play.run(f"mcp-broker audit show {HERE}")
    play.run(f"mcp-broker audit verify {HERE}")
    return "every record is the one that was written"


def tamper(play: Play) -> str:
    """Change one byte of a copy of the log, and verify that."""
    play.screen.say("Somebody changes one letter in a copy of it: who got the token?")
    name, at = released(play.stage.directory / "state/audit")
    play.run("cp -r state/audit copy")
    play.run(f"printf m | dd of=copy/{name} bs=1 seek={at} conv=notrunc status=none")
    play.run("mcp-broker audit verify --path copy", status=5)
    return "the log shows that somebody has changed it, and where"


def released(log: Path) -> tuple[str, int]:
    """Return the file of the log and the place in it where the server's name stands in the record of the release."""
    for segment in sorted(log.glob("*.jsonl")):
        text = segment.read_bytes()
        record = text.find(b'"credential/authorised"')
        at = text.find(NAMED, record)
        if record >= 0 and at >= 0:
            return segment.name, at + len(NAMED) - 1
    message = "the release is not on record"
    raise StepFailedError(message)


def stop(play: Play) -> str:
    """End the broker."""
    play.run(f"mcp-broker stop {HERE}")
    play.expect("the broker goes on, or did not end well", play.stage.wait() == 0)
    return "the broker has ended"


NAMED: Final = b'"server":"n'


def steps() -> Sequence[tuple[str, Callable[[Play], str]]]:
    """Return every step that this user can take, with its title."""
    return (
        ("Make a first config and a master key", initialise),
        ("Start the broker", serve),
        ("Store a secret", store),
        ("Say which MCP server gets it", configure),
        ("Tell the client", connect),
        ("Use the server", use),
        ("See what is out", hold),
        ("Look for the token", look_for_it),
        ("Ask for a server that is not there", ask_for_another),
        ("Ask for a server that is somebody else's", be_the_wrong_one),
        *([("Ask as somebody else", be_somebody_else)] if os.geteuid() == 0 else []),
        ("Kill the broker", restart),
        ("Close the client", close),
        ("Read the audit log", verify),
        ("Change the audit log", tamper),
        ("Stop the broker", stop),
    )

"""
The units under a booted systemd: hardened as they are shipped, held by sockets, with callers that run in units.
"""

import json
import subprocess
from collections.abc import Iterator
from typing import Final

import pytest

from tests.live.booted import BROKER, PYTHON, Host, booted

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.live("booted", commands=["systemd-nspawn", "nsenter", "setpriv", "useradd"]),
]

CONFIG: Final = """
[backends.local]
type = "sealed"
key = { credential = "mcp-broker-master-key" }

[servers.app]
command = ["/usr/bin/env"]
selectors = ["unit:mcp-app.service"]
env.PASSWORD = "{app-db.password}"

[servers.conn]
command = ["/usr/bin/env"]
selectors = ["unit:mcp-conn@.service"]
env.PASSWORD = "{app-db.password}"
"""

WORKLOAD: Final = """
[Service]
Type=oneshot
User=dev
ExecStart={broker} exec {server} --system
StandardOutput=truncate:/run/{server}.out
"""

FORGE: Final = f"""
import os, pathlib
lines = pathlib.Path("/proc/self/cgroup").read_text().splitlines()
for line in lines:
    number, kind, path = line.split(":", 2)
    if kind not in ("", "name=systemd"):
        continue
    for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"):
        mine = path.split(".service/")[0] + ".service/system.slice/mcp-app.service"
        try:
            os.makedirs(top + mine)
            pathlib.Path(top + mine + "/cgroup.procs").write_text(str(os.getpid()))
        except OSError as error:
            print(top, error)
print(pathlib.Path("/proc/self/cgroup").read_text(), flush=True)
os.execv("{BROKER}", ["{BROKER}", "exec", "app", "--system"])
"""
"""Makes a cgroup named like the unit below the user's own manager, goes there, and asks."""

OWN: Final = f"""
cd
mkdir -p ~/.local/bin
ln -s {BROKER} ~/.local/bin/mcp-broker
PATH=~/.local/bin:$PATH
mcp-broker service install --user
mcp-broker init --yes
printf '[servers.scripts]\nallow = ["github"]\n' > ~/.config/mcp-broker/broker.d/scripts.toml
printf hunter2 | mcp-broker secret set --user github
mcp-broker get --user github
mcp-broker status --user --json >status.json
{PYTHON} -c 'import json; status = json.load(open("status.json")); print(status["mode"], status["healthy"])'
"""
"""What the README says for a user."""

ONCE: Final = """
cd
~/.local/bin/mcp-broker get --user github
systemctl --user list-units 'mcp-broker*'
"""
"""What a user types who has no units."""

CREDENTIAL: Final = "/etc/credstore.encrypted/mcp-broker-master-key"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Return a booted host on which the broker runs as the README sets it up, its master key sealed to the host."""
    version = subprocess.run(
        [PYTHON, "-I", "-c", "import sys, ensurepip; print(sys.version_info >= (3, 11))"],
        capture_output=True,
        text=True,
        check=False,
    )
    if version.stdout.strip() != "True":
        pytest.skip(f"needs {PYTHON} 3.11 or later, with venv")
    with booted(tmp_path_factory.mktemp("booted")) as host:
        host.do("useradd", "--create-home", "dev")
        host.do(
            "sh",
            "-c",
            f"mkdir -p /etc/credstore.encrypted; head -c 32 /dev/urandom | base64 |"
            f" systemd-creds encrypt --name=mcp-broker-master-key - {CREDENTIAL}",
        )
        host.write(
            "/etc/systemd/system/mcp-broker.service.d/key.conf",
            "[Service]\nLoadCredentialEncrypted=mcp-broker-master-key\n",
        )
        host.write("/etc/mcp-broker/broker.toml", CONFIG)
        for unit, server in (("mcp-app.service", "app"), ("mcp-conn@.service", "conn"), ("other.service", "app")):
            host.write(f"/etc/systemd/system/{unit}", WORKLOAD.format(broker=BROKER, server=server))
        host.do(BROKER, "service", "install", "--system")
        host.do(BROKER, "secret", "set", "--system", "app-db", "password", stdin="hunter2")
        yield host


def as_session(host: Host, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the user, with the user's own manager running."""
    uid = host.do("id", "-u", "dev").strip()
    host.do("systemctl", "start", f"user@{uid}.service")
    return host.run("env", f"XDG_RUNTIME_DIR=/run/user/{uid}", *words, user="dev")


def seen_by(host: Host, unit: str, server: str) -> list[str]:
    """Start a unit and return the password that its server found."""
    host.run("systemctl", "start", unit)
    lines = host.do("cat", f"/run/{server}.out").splitlines()
    return [line for line in lines if line.startswith("PASSWORD=")]


def test_the_hardened_service_is_well(host: Host) -> None:
    """Under all that the unit forbids, the broker runs and finds nothing wrong."""
    status = json.loads(host.do(BROKER, "status", "--system", "--json"))
    assert ("system", True, []) == (status["mode"], status["healthy"], status["problems"])


def test_a_server_in_its_unit_gets_its_credential(host: Host) -> None:
    """A server that systemd started in the unit that the config names finds its credential."""
    assert ["PASSWORD=hunter2"] == seen_by(host, "mcp-app.service", "app")


def test_an_instance_is_as_good_as_its_template(host: Host) -> None:
    """A selector that names a template holds for each of its instances."""
    assert ["PASSWORD=hunter2"] == seen_by(host, "mcp-conn@7.service", "conn")


def test_the_same_user_in_another_unit_gets_nothing(host: Host) -> None:
    """Another unit, of the same user and with the same command, is denied."""
    assert [] == seen_by(host, "other.service", "app")


def test_a_unit_that_a_user_made_up_is_none(host: Host) -> None:
    """A cgroup of the right name, below a user's own manager, makes nobody the unit."""
    done = as_session(host, "systemd-run", "--user", "--quiet", "--wait", "--pipe", PYTHON, "-I", "-c", FORGE)
    assert (3, True, False) == (done.returncode, "/mcp-app.service" in done.stdout, "hunter2" in done.stdout)


def test_a_client_starts_a_broker_that_was_stopped(host: Host) -> None:
    """The sockets are systemd's: who asks while nobody runs is answered all the same."""
    host.do(BROKER, "stop", "--system")
    assert ["PASSWORD=hunter2"] == seen_by(host, "mcp-app.service", "app")


def test_a_reload_that_is_refused_fails_and_changes_nothing(host: Host) -> None:
    """``systemctl reload`` fails on a config that is wrong, and the running one stays in force."""
    host.write("/etc/mcp-broker/broker.toml", CONFIG + "\n[nonsense]\n")
    refused = host.run("systemctl", "reload", "mcp-broker")
    still = seen_by(host, "mcp-app.service", "app")
    host.write("/etc/mcp-broker/broker.toml", CONFIG)
    assert (1, ["PASSWORD=hunter2"], 0) == (
        refused.returncode,
        still,
        host.run("systemctl", "reload", "mcp-broker").returncode,
    )


def test_a_member_of_the_group_is_an_admin_and_another_user_is_not(host: Host) -> None:
    """The admin's socket is for the group that sysusers made."""
    before = host.run(BROKER, "status", "--system", user="dev").returncode
    host.do("usermod", "--append", "--groups", "mcp-broker-admin", "dev")
    after = host.run(BROKER, "status", "--system", user="dev").returncode
    host.do("gpasswd", "--delete", "dev", "mcp-broker-admin")
    assert (False, 0) == (before == 0, after)


def test_a_user_has_a_broker_of_their_own(host: Host) -> None:
    """A user's units start the user's own broker at the first call, under the user's manager."""
    done = as_session(host, "sh", "-ec", OWN)
    assert (0, ["hunter2", "user True"]) == (done.returncode, done.stdout.splitlines()[-2:])


def test_installing_again_changes_nothing(host: Host) -> None:
    """The command says of each file that it is there, and the broker runs on."""
    before = host.do("systemctl", "show", "--property=MainPID", "mcp-broker.service")
    said = host.do(BROKER, "service", "install", "--system")
    after = host.do("systemctl", "show", "--property=MainPID", "mcp-broker.service")
    assert (5, 0, before) == (said.count("there  "), said.count("put  "), after)


def test_a_user_s_broker_is_started_without_units(host: Host) -> None:
    """Where the host has no broker and the user no units, a command has the user's systemd start one for once."""
    host.do("mv", "/etc/mcp-broker", "/etc/moved")
    # Nor is it to look like a container, which it is.
    host.do("rm", "-f", "/.dockerenv", "/run/.containerenv", "/run/systemd/container")
    try:
        as_session(host, "sh", "-ec", "cd; ~/.local/bin/mcp-broker service install --user --remove")
        done = as_session(host, "sh", "-ec", ONCE)
        left = host.run("ls", "/home/dev/.config/systemd/user").stdout.split()
    finally:
        host.do("mv", "/etc/moved", "/etc/mcp-broker")
    assert ("hunter2", True) == (done.stdout[:7], "mcp-broker-on-demand.service" in done.stdout), done.stderr
    assert [] == [name for name in left if name.startswith("mcp-broker")]


def test_removing_leaves_nothing_of_it(host: Host) -> None:
    """The units, the user's group file and the sockets go; what an admin has put beside them stays."""
    host.do(BROKER, "service", "install", "--system", "--remove")
    places = ("/etc/systemd/system", "/etc/sysusers.d", "/etc/tmpfiles.d")
    left = [name for place in places for name in host.run("ls", place).stdout.split()]
    active = host.run("systemctl", "is-active", "mcp-broker.service", "mcp-broker.socket").stdout.split()
    assert ["mcp-broker.service.d"] == [name for name in left if name.startswith("mcp-broker")]
    assert {"inactive"} == set(active)

"""
Small real file systems that can be filled, frozen and broken, for tests that run as root.

Each is an ext4 in a file of a few megabytes, mounted through a loop device. It
is thawed and unmounted whatever the test does, and a frozen one also when the
test is killed: a watchdog of its own thaws it after a while. This module
refuses to touch a device that it has not made.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, final

MEGABYTE: Final = 1 << 20
_LONGEST_FREEZE: Final = 60


def command(*words: str | Path) -> str:
    """Run a command and return what it says; fail where it fails."""
    done = subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@final
class Volume:
    """One mounted file system."""

    def __init__(self, image: Path, mount: Path, *, options: str) -> None:
        """Name its image and where it is mounted."""
        self.image = image
        self.path = mount
        self._options = options
        self._watchdog: subprocess.Popen[bytes] | None = None

    def mount(self) -> None:
        """Mount it."""
        self.path.mkdir(exist_ok=True)
        command("mount", "-o", f"loop,{self._options}", self.image, self.path)

    def remount(self, option: str) -> None:
        """Mount it in another way."""
        command("mount", "-o", f"remount,{option}", self.path)

    def freeze(self) -> None:
        """Let every write wait from now on."""
        watch = f"sleep {_LONGEST_FREEZE}; fsfreeze -u '{self.path}'"
        self._watchdog = subprocess.Popen(["sh", "-c", watch], stderr=subprocess.DEVNULL, start_new_session=True)
        command("fsfreeze", "-f", self.path)

    def thaw(self) -> None:
        """Let go of the writes that wait."""
        if self._watchdog is not None:
            command("fsfreeze", "-u", self.path)
            os.killpg(self._watchdog.pid, 9)
            self._watchdog.wait()
            self._watchdog = None

    def fill(self, *, leave: int = 0) -> None:
        """Write until nothing is left, or so many bytes."""
        descriptor = os.open(self.path / "filling", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (MEGABYTE, 65536, 1024):
                with suppress(OSError):
                    while os.statvfs(self.path).f_bavail * 1024 >= leave + size:
                        os.write(descriptor, bytes(size))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def empty(self) -> None:
        """Take the filling away."""
        (self.path / "filling").unlink()
        os.sync()

    def break_down(self) -> None:
        """Have the kernel find an error in it: it becomes read-only under those who write."""
        device = Path(command("findmnt", "-no", "SOURCE", self.path)).name
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("a test\n")

    def replace(self) -> None:
        """Take it away under those who write, mend a copy and mount that in its place."""
        command("umount", "--lazy", self.path)
        copy = self.image.with_suffix(".copy")
        copy.write_bytes(self.image.read_bytes())
        subprocess.run(["fsck.ext4", "-fy", str(copy)], check=False, capture_output=True)
        self.image = copy
        self.mount()

    def unmount(self) -> None:
        """Unmount it, thawed."""
        self.thaw()
        command("umount", "--lazy", self.path)


@contextmanager
def volume(directory: Path, *, name: str = "disk", size: int = 16 * MEGABYTE, options: str = "rw") -> Iterator[Volume]:
    """Make a file system in ``directory``, mount it, and clean up whatever happens."""
    image = directory / f"{name}.img"
    with image.open("xb") as file:
        file.truncate(size)
    command("mkfs.ext4", "-q", "-F", "-m", "0", "-b", "1024", image)
    made = Volume(image, directory / name, options=options)
    with ExitStack() as cleaning:
        made.mount()
        cleaning.callback(made.unmount)
        yield made


@contextmanager
def thin_volume(directory: Path) -> Iterator[tuple[Volume, Volume]]:
    """Make a file system whose disk has less room than it says, as a thinly provisioned one has; and what it is on."""
    with volume(directory, name="ground", size=24 * MEGABYTE) as ground, volume(ground.path, name="thin") as thin:
        yield thin, ground

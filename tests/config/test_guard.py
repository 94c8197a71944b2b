"""Who may write a config."""

import grp
import os
import pwd
import stat
import struct
from pathlib import Path

import pytest

from broker.config.guard import Breach, Rights, breach, foreign, is_private_group, rights

FILE = stat.S_IFREG
DIRECTORY = stat.S_IFDIR
HERE = Path("/x/a b")
US = 1000


def friends(uid: int, gid: int) -> bool:
    """Hold for group 1000 of user 1000 alone."""
    return (uid, gid) == (1000, 1000)


OTHERS = Breach(text="everybody can write it", hint="chmod o-w '/x/a b'")
GROUP = Breach(text="the group 50 can write it, which others may be in", hint="chmod g-w '/x/a b'")
LIST = Breach(text="an access list lets others write it", hint="setfacl -b '/x/a b' && chmod g-w '/x/a b'")


@pytest.mark.parametrize(
    ("mode", "gid", "acl", "expected"),
    [
        (FILE | 0o600, 1000, False, None),
        (FILE | 0o644, 50, False, None),
        (FILE | 0o664, 1000, False, None),
        (FILE | 0o664, 50, False, GROUP),
        (FILE | 0o660, 50, False, GROUP),
        (FILE | 0o666, 1000, False, OTHERS),
        (FILE | 0o602, 1000, False, OTHERS),
        (FILE | 0o1666, 1000, False, OTHERS),
        (FILE | 0o664, 1000, True, LIST),
        (FILE | 0o644, 1000, True, None),
        (DIRECTORY | 0o755, 50, False, None),
        (DIRECTORY | 0o777, 50, False, OTHERS),
        (DIRECTORY | 0o1777, 50, False, None),
        (DIRECTORY | 0o775, 50, False, GROUP),
        (DIRECTORY | 0o1775, 50, False, None),
        (DIRECTORY | 0o775, 1000, False, None),
    ],
)
def test_refuses_what_others_can_write(mode: int, gid: int, expected: Breach | None, *, acl: bool) -> None:
    """The owner and the owner's private group may write; a sticky directory keeps files apart by itself."""
    found = Rights(mode=mode, uid=1000, gid=gid, acl=acl)
    assert expected == breach(found, HERE, private=friends)


@pytest.mark.parametrize(
    ("uid", "expected"),
    [
        (0, None),
        (US, None),
        (1001, Breach(text="it belongs to uid 1001, not to uid 1000 or root", hint="chown 1000 '/x/a b'")),
        (65534, Breach(text="it belongs to uid 65534, not to uid 1000 or root", hint="chown 1000 '/x/a b'")),
    ],
)
def test_trusts_us_and_root_alone(uid: int, expected: Breach | None) -> None:
    """What belongs to anybody else is refused, whoever may write it."""
    assert expected == foreign(Rights(mode=FILE | 0o600, uid=uid, gid=uid), HERE, uid=US)


def test_private_group_has_the_name_of_its_user_and_nobody_else() -> None:
    """A group is private where it is a user's first, is called like the user, and is nobody else's."""
    taken = [user.pw_gid for user in pwd.getpwall()]
    expected = {
        (user.pw_uid, group.gr_gid): user.pw_gid == group.gr_gid
        and user.pw_name == group.gr_name
        and not set(group.gr_mem) - {user.pw_name}
        and taken.count(group.gr_gid) == 1
        for user in pwd.getpwall()
        for group in grp.getgrall()
    }
    assert expected == {pair: is_private_group(*pair) for pair in expected}


def test_unknown_user_has_no_private_group() -> None:
    """Who is in no database is trusted with nothing."""
    assert not is_private_group(4294000000, 4294000000)


def test_reads_the_rights_of_a_file(tmp_path: Path) -> None:
    """Mode, owner and group are those of the file system."""
    file = tmp_path / "f"
    file.touch(mode=0o640)
    expected = Rights(mode=FILE | 0o640, uid=os.geteuid(), gid=file.stat().st_gid)
    assert expected == rights(file.stat(), file)


def test_sees_an_access_list(tmp_path: Path) -> None:
    """A list that lets one more user write is seen, where the file system keeps such lists."""
    file = tmp_path / "f"
    file.touch(mode=0o600)
    none = 0xFFFFFFFF
    entries = [(0x01, 6, none), (0x02, 6, 12345), (0x04, 0, none), (0x10, 6, none), (0x20, 0, none)]
    try:
        os.setxattr(
            file, "system.posix_acl_access", struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)
        )
    except OSError as error:
        pytest.skip(f"this file system keeps no access lists: {error.strerror}")
    assert rights(file.stat(), file).acl

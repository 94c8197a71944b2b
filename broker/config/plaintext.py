"""
What looks like a credential that somebody wrote into the config.

It is a guess, good enough for a warning. This module refuses to hand on what
it was shown: callers learn that something looks like a secret, never which.
"""

import math
import re
from typing import Final

HIDDEN: Final = "<looks like a secret, not shown>"

_PREFIXES: Final = re.compile(
    r"""
      gh[pousr]_[A-Za-z0-9]{16,} | github_pat_[A-Za-z0-9_]{16,} | gl(?:pat|ptt|dt|rt|soat|ft|cbt)-[A-Za-z0-9_-]{16,}
    | sk-[A-Za-z0-9_-]{16,} | [rs]k_(?:live|test)_[A-Za-z0-9]{12,} | whsec_[A-Za-z0-9]{16,}
    | xox[abeoprs]-[A-Za-z0-9-]{10,} | xapp-[A-Za-z0-9-]{10,} | (?:AKIA|ASIA)[A-Z0-9]{16} | AIza[A-Za-z0-9_-]{30,}
    | ya29\.[A-Za-z0-9_-]{16,} | GOCSPX-[A-Za-z0-9_-]{16,} | hv[sbr]\.[A-Za-z0-9_-]{16,} | \b[sb]\.[A-Za-z0-9]{24}\b
    | eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\. | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY | npm_[A-Za-z0-9]{30,}
    | pypi-[A-Za-z0-9_-]{16,} | do[opr]_v1_[a-f0-9]{32,} | SG\.[A-Za-z0-9_-]{16,}\. | fig[dou]_[A-Za-z0-9_-]{16,}
    | lin_(?:api|oauth)_[A-Za-z0-9]{16,} | (?:ntn|secret)_[A-Za-z0-9]{20,} | glsa_[A-Za-z0-9_]{20,}
    | AT(?:ATT|CTT|BB)[A-Za-z0-9_=-]{20,} | BSA[A-Za-z0-9_-]{24,} | tvly-[A-Za-z0-9_-]{16,} | pplx-[A-Za-z0-9]{20,}
    | hf_[A-Za-z0-9]{20,} | gsk_[A-Za-z0-9]{20,} | xai-[A-Za-z0-9]{20,} | sntry[su]_[A-Za-z0-9_=+/-]{16,}
    | dapi[a-f0-9]{32} | shp(?:at|ss|ca|pa)_[a-fA-F0-9]{32} | pat[A-Za-z0-9]{14}\.[a-f0-9]{64}
    """,
    re.VERBOSE,
)
"""What the issuers of tokens put in front of them, so that tokens can be found."""

_PASSWORD_IN_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@", re.IGNORECASE)
_NAMED: Final = re.compile(
    r"(?:^|[_.-])(?:TOKENS?|SECRETS?|SECRET_ID|PASSWORD|PASSWD|PASSPHRASE|PWD|PASS|API_?KEY|ACCESS_KEY|PRIVATE_KEY|SECRET_KEY|PAT)$",
    re.IGNORECASE,
)
_ASSIGNED: Final = re.compile(r"-{0,2}(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[=:]\s?(?P<value>.+)", re.DOTALL)
_RANDOM: Final = re.compile(r"[A-Za-z0-9+/_-]{24,}={0,2}")
_SHORTEST: Final = 6
_BITS: Final = 3.7
_HARMLESS: Final = re.compile(r"[./~$<].*|[a-z]+://[^@]*|true|false|none|null", re.IGNORECASE | re.DOTALL)


def looks_secret(text: str, name: str = "") -> bool:
    """
    Return whether a text is probably a credential.

    Args:
        text: as it stands, without what is a reference.
        name: of the variable, option or argument that it is for, if it has one.

    """
    if _PREFIXES.search(text) or _PASSWORD_IN_URL.search(text):
        return True
    if named_secret(name) and len(text) >= _SHORTEST and not _HARMLESS.fullmatch(text):
        return True
    return any(_is_random(word[0]) for word in _RANDOM.finditer(text))


def argument_looks_secret(argument: str) -> bool:
    """Return whether a command's argument probably holds a credential: alone, or as in ``--token=…``."""
    assigned = _ASSIGNED.fullmatch(argument)
    if assigned and looks_secret(assigned["value"], assigned["name"]):
        return True
    return looks_secret(argument)


def named_secret(name: str) -> bool:
    """Return whether a variable or option is called like something that holds a credential."""
    return bool(_NAMED.search(name.replace("-", "_")))


def shown(text: str, name: str = "") -> str:
    """Return what may be printed of a text: itself, or that it looks like a secret."""
    return HIDDEN if looks_secret(text, name) else text


def _is_random(word: str) -> bool:
    """Return whether a long word has all kinds of characters, as evenly as chance mixes them."""
    kinds = (str.islower, str.isupper, str.isdigit)
    if not all(any(kind(one) for one in word) for kind in kinds) or "/" in word.strip("/"):
        return False
    counts = [word.count(one) / len(word) for one in set(word)]
    return -sum(share * math.log2(share) for share in counts) >= _BITS

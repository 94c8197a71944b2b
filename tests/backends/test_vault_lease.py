"""The broker's name for what a Vault has made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import CorruptError
from backends.vault_lease import VaultLease, decoded, encoded


@given(
    st.builds(
        VaultLease, id=st.none() | st.text(), token=st.text(), child=st.none() | st.text(), serial=st.none() | st.text()
    )
)
def test_a_lease_is_found_again(lease: VaultLease) -> None:
    """What was written down of a lease is read as the same."""
    assert lease == decoded(encoded(lease))


def test_what_is_not_known_takes_no_room() -> None:
    """A lease without a token of its own is its name and the token that it hangs on."""
    assert '{"id":"db/creds/ro/x","token":"acc"}' == encoded(VaultLease(id="db/creds/ro/x", token="acc"))


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"id": 5}', '{"token": null}'])
def test_what_is_no_lease_is_corrupt(text: str) -> None:
    """A lease that cannot be read is told as that, and its text is not repeated."""
    with pytest.raises(CorruptError, match="what was stored of a lease cannot be read"):
        decoded(text)

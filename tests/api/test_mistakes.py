"""What a client reads when a parameter is not what the verb takes."""

import msgspec
import pytest

from broker.api import messages as m
from broker.api.audit_messages import AuditRead
from broker.api.mistakes import in_words
from broker.api.words import Params


@pytest.mark.parametrize(
    ("kind", "raw", "says"),
    [
        (m.SecretSet, b'{"name":"bad/name","values":{}}', "name: expected letters, digits and . _ -, with a letter"),
        (m.SecretSet, b'{"name":"a","values":{"b/":"x"}}', "a name in values: expected letters, digits and . _ -"),
        (m.LeaseRevoke, b'{"accessor":"a b"}', "accessor: expected letters, digits, _ and -"),
        (AuditRead, b'{"segment":"x","offset":0,"limit":9}', "segment: expected the name of a segment"),
        (m.SecretSet, b'{"name":7,"values":{}}', "name: expected `str`, got `int`"),
        (m.SecretSet, b"[]", "expected `object`, got `array`"),
        (m.SecretSet, b'{"nme":"a","values":{}}', "object contains unknown field `nme`"),
    ],
)
def test_what_is_wrong_is_said_in_words(kind: type[Params], raw: bytes, says: str) -> None:
    """The place comes first, and no regular expression is shown."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(raw, type=kind)
    assert in_words(caught.value).startswith(says)
    assert "regex" not in in_words(caught.value)

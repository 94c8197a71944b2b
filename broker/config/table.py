"""
One table of the config, read key by key with types.

Every ``take_…`` notes what is wrong and goes on, so that all mistakes are found
at once. This module refuses to quote values; keys it may.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from broker.config import duration
from broker.config.document import Document
from broker.config.problems import KeyPath, Location, Problem, Problems, WrongTextError, dotted, meant

T = TypeVar("T")

_TYPES: Final[Mapping[type, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "an array",
    dict: "a table",
}


class Table:
    """A table: where it stands, and what is in it."""

    __slots__ = ("_document", "_path", "_problems", "rows")

    def __init__(self, document: Document, path: KeyPath, rows: Mapping[str, object], problems: Problems) -> None:
        """Look at ``rows``, which stand at ``path`` in the document."""
        self._document = document
        self._path = path
        self._problems = problems
        self.rows = rows

    def where(self, *key: str | int) -> Location:
        """Return the place of the table, or of a key in it."""
        return self._document.where(self._path + key)

    def reject(self, *key: str | int, text: str, hint: str | None = None) -> None:
        """Note that a key, or the table itself, is wrong."""
        path = self._path + key
        self._problems.add(Problem(where=self._document.where(path), key=dotted(path), text=text, hint=hint))

    def expect(self, known: Iterable[str], misplaced: Mapping[str, str] | None = None) -> None:
        """
        Note every key that is not known here.

        Args:
            known: the keys that may stand here.
            misplaced: hints for keys that people try, by key.

        """
        names = sorted(known)
        for key in self.rows:
            if key not in names:
                hint = (misplaced or {}).get(key)
                near = "" if hint else meant(key, names)
                self.reject(key, text=f"unknown key{near}", hint=hint or f"known here: {', '.join(names)}")

    def take_text(self, key: str) -> str | None:
        """Return text on one line that is not empty; None where the key is absent or wrong."""
        value = self.rows.get(key)
        if value is None or not self._is_text(value, key):
            return None
        text = str(value)
        if not text or not text.isprintable():
            self.reject(key, text="must not have control characters" if text else "must not be empty")
            return None
        return text

    def take_flag(self, key: str) -> bool | None:
        """Return true or false; None where the key is absent or wrong."""
        value = self.rows.get(key)
        if value is None or isinstance(value, bool):
            return value
        self._reject_type(key, value=value, wanted="true or false")
        return None

    def take_count(self, key: str, *, lowest: int = 0, highest: int = 2**31 - 1) -> int | None:
        """Return a whole number within bounds; None where the key is absent or wrong."""
        value = self.rows.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            self._reject_type(key, value=value, wanted="a whole number")
            return None
        if not lowest <= value <= highest:
            self.reject(key, text=f"must be between {lowest} and {highest}")
            return None
        return value

    def take_seconds(self, key: str, *, lowest: float = 0.0) -> float | None:
        """Return a length of time in seconds; None where the key is absent or wrong."""
        value = self.rows.get(key)
        if value is None:
            return None
        try:
            length, wrong = duration.seconds(value), None
        except ValueError as error:
            length, wrong = 0.0, str(error)
        if wrong is None and length < lowest:
            wrong = f"must be at least {duration.text(lowest)}"
        if wrong is not None:
            self.reject(key, text=wrong)
            return None
        return length

    def take_words(self, key: str) -> tuple[str, ...] | None:
        """Return an array of texts; None where the key is absent or wrong."""
        value = self.rows.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            hint = 'write it as an array, one element per word: ["…", "…"]' if isinstance(value, str) else None
            self._reject_type(key, value=value, wanted="an array", hint=hint)
            return None
        good = [self._is_text(word, key, number) for number, word in enumerate(value)]
        return tuple(value) if all(good) else None

    def take_table(self, key: str) -> "Table | None":
        """Return a table within; None where the key is absent or wrong."""
        value = self.rows.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self._reject_type(key, value=value, wanted="a table")
            return None
        return Table(self._document, (*self._path, key), value, self._problems)

    def take_texts(self, key: str) -> dict[str, str]:
        """Return the texts in a table within, by name; empty where it is absent."""
        table = self.take_table(key)
        rows = {} if table is None else table.rows
        return {name: str(value) for name, value in rows.items() if table is not None and table.holds_text(name)}

    def holds_text(self, key: str) -> bool:
        """Return whether a key holds text, and note it where it does not."""
        return self._is_text(self.rows[key], key)

    def read(self, reader: Callable[[str], T], text: str, *key: str | int) -> T | None:
        """Return what ``reader`` makes of a text; None where it refuses, which is noted."""
        try:
            return reader(text)
        except WrongTextError as error:
            wrong = error
        # Behind the handler: what this raises in the end carries no other error along.
        self.reject(*key, text=wrong.message, hint=wrong.hint)
        return None

    def each(self, values: Iterable[str], key: str, judge: Callable[[str], str | None]) -> None:
        """Note what ``judge`` finds wrong with the elements of an array."""
        for number, value in enumerate(values):
            text = judge(value)
            if text is not None:
                self.reject(key, number, text=text)

    def _is_text(self, value: object, *key: str | int) -> bool:
        if not isinstance(value, str):
            self._reject_type(*key, value=value, wanted="text", hint="write it in quotes")
            return False
        if "\0" in value:
            self.reject(*key, text="text with a NUL character")
            return False
        return True

    def _reject_type(self, *key: str | int, value: object, wanted: str, hint: str | None = None) -> None:
        is_ = _TYPES.get(type(value), "a date or time")
        self.reject(*key, text=f"must be {wanted}, not {is_}", hint=hint)

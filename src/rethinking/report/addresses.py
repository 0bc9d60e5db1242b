"""The address of a number on the page, such as `table1-mlp_3x512-random-test`.

An address names the table, the values of the factors, the place on the axis and the quantity. It depends on the number
alone, so it stays the same when the table grows.
"""

from __future__ import annotations

import re

from rethinking.experiments.experiment import Cell

SHORT = {"accuracy", "error"}  # words of a quantity that an address goes without


class Addresses:
    """Gives each number an address that nothing else on the page has."""

    def __init__(self) -> None:
        self.given: set[str] = set()

    def of(self, table: str, cell: Cell, tabled: bool) -> str:
        """The address of a number; tabled: whether the place on the axis names a row."""
        values = [_value(name, value) for name, value in cell.labels]
        if tabled and cell.x is not None:
            values.append(f"{cell.x:g}")
        plain = "-".join([_word(table), *(word for word in map(_word, values) if word), _quantity(cell.quantity)])
        return self._free(plain)

    def of_section(self, table: str) -> str:
        """The address of a table, whose file may be called anything."""
        return self._free(_word(table) or "table")

    def _free(self, plain: str) -> str:
        address, number = plain, 1
        while address in self.given:
            number += 1
            address = f"{plain}-{number}"
        self.given.add(address)
        return address


def _value(name: str, value: str) -> str:
    """A factor's value; of a factor that is on or off, its name or nothing."""
    return {"yes": name, "no": ""}.get(value, value)


def _quantity(name: str) -> str:
    words = name.split()
    return _word(" ".join(word for word in words if word not in SHORT) or name)


def _word(text: str) -> str:
    """Text without what does not belong into an address."""
    return re.sub(r"[^\w.+]+", "_", text).strip("_")

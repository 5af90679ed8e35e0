"""Annotations that Python evaluates on demand, from 3.14. Therefore this module does not import `annotations`."""

import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.conftest import arrived
from ts_autotrack import suppress, track_feature, user_context

if TYPE_CHECKING:
    from decimal import Decimal  # noqa: TC004 - missing when the program runs, as usual with such annotations

    from tests.conftest import Inspector

annotationlib: Any = pytest.importorskip("annotationlib", reason="this Python evaluates annotations at the definition")
signature: Any = inspect.signature
pytestmark = pytest.mark.usefixtures("acting")


@pytest.mark.parametrize(
    "decorate", [track_feature("f"), track_feature("f", capture=["amount"]), user_context("u"), suppress()]
)
def test_annotations_are_evaluated_on_demand(decorate: Any) -> None:
    """Decorating evaluates no annotation, and the decorated callable has the annotations of the original."""

    def pay(amount: Decimal) -> Decimal:
        return amount

    original: Any = pay
    text = annotationlib.Format.STRING
    for target in (original, staticmethod(original)):
        tracked = decorate(target)
        assert annotationlib.get_annotations(tracked, format=text) == {"amount": "Decimal", "return": "Decimal"}
    for target in (original, functools.partial(original, amount=3)):
        tracked = decorate(target)
        assert signature(tracked, annotation_format=text) == signature(target, annotation_format=text)
    with pytest.raises(NameError, match="Decimal"):
        _ = decorate(original).__annotations__


def test_capture_needs_no_annotation(inspector: "Inspector") -> None:
    """`capture` reads the names of the arguments, and needs none of their types."""

    @track_feature("pay", capture=["amount"])
    def pay(amount: Decimal) -> None:
        """Do nothing."""

    call: Any = pay
    call(3)
    call(amount=4)
    assert [properties["amount"] for properties in arrived(inspector)] == [3, 4]

"""The plugin of pytest, found by its entry point: fixtures that make MTAs and end them with the test.

Nobody else imports this module; what makes an MTA is imported when a test asks for one, so a
suite that asks for none pays nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from openqmail.core.testing.mta import Mta
    from openqmail.core.testing.virtual import VirtualMta


@pytest.fixture
def mta_factory() -> "Iterator[Callable[..., Mta]]":
    """Makes MTAs that serve: `mta_factory(users=["alice"], domain="a.example")`, as `Mta` is made."""
    from openqmail.core.testing.mta import Mta  # noqa: PLC0415

    with ExitStack() as stack:

        def make(*arguments: object, **options: object) -> "Mta":
            return stack.enter_context(Mta(*arguments, **options))  # type: ignore[arg-type]  # it says so

        yield make


@pytest.fixture
def mta(mta_factory: "Callable[..., Mta]") -> "Mta":
    """An MTA for alice@a.example that serves; a fixture of this name in a conftest.py takes its place."""
    return mta_factory()


@pytest.fixture
def virtual_mta_factory() -> "Iterator[Callable[..., VirtualMta]]":
    """The same with virtual time: `virtual_mta_factory(receivers={...})`, as `VirtualMta` is made."""
    from openqmail.core.testing.virtual import VirtualMta  # noqa: PLC0415

    with ExitStack() as stack:

        def make(*arguments: object, **options: object) -> "VirtualMta":
            return stack.enter_context(VirtualMta(*arguments, **options))  # type: ignore[arg-type]

        yield make

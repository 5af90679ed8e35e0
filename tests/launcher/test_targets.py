"""Functions named in settings: which calls count, and the state of each name."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

import pytest

from ts_autotrack import is_tracked, user_context
from ts_autotrack.testing import capture_events

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.launcher.conftest import Program
    from ts_autotrack.testing import Events

needs_watching = pytest.mark.skipif(sys.version_info < (3, 12), reason="Python before 3.12 cannot watch a function")
WRAPPED_BEFORE_3_12 = "watched in place" if sys.version_info >= (3, 12) else "wrapped"


class Uses:
    """The uses of features by the test's user.

    Args:
        events: The captured events.
    """

    def __init__(self, events: Events) -> None:
        self.events = events
        self._read = 0

    def new(self) -> list[str]:
        """Return the names of the features used since the last call."""
        found = self.events.all[self._read :]
        self._read += len(found)
        return [str(event.properties["feature_name"]) for event in found]


@pytest.fixture
def uses() -> Iterator[Uses]:
    """The uses of features by the test's user."""
    with capture_events() as events, user_context("user_1", group_id="account_1"):
        yield Uses(events)


def test_functions_of_every_kind_are_tracked(program: Program, uses: Uses) -> None:
    """Functions, coroutine functions, generators, context managers and methods of all kinds count."""
    program.write(
        "shop",
        """
        import contextlib
        def buy(): return "bought"
        async def pay(): return "paid"
        def items(): yield "item"
        async def stream(): yield "item"
        @contextlib.contextmanager
        def cart(): yield "cart"
        class Order:
            def send(self): return "sent"
            @classmethod
            def draft(cls): return cls.__name__
            @staticmethod
            def price(): return 7
        """,
    )
    names = ["buy", "pay", "items", "stream", "cart", "Order.send", "Order.draft", "Order.price"]
    program.track({f"shop:{name}": name.lower() for name in names})
    shop = program.load("shop")

    async def stream() -> list[str]:
        return [item async for item in shop.stream()]

    assert shop.buy() == "bought"
    assert asyncio.run(shop.pay()) == "paid"
    assert list(shop.items()) == asyncio.run(stream()) == ["item"]
    with shop.cart() as cart:
        assert cart == "cart"
    assert (shop.Order().send(), shop.Order.draft(), shop.Order.price()) == ("sent", "Order", 7)
    assert uses.new() == [name.lower() for name in names]
    assert {program.status(f"shop:{name}").mechanism for name in names} == {WRAPPED_BEFORE_3_12}
    assert program.faults == []


@needs_watching
def test_every_holder_of_a_function_is_covered(program: Program, uses: Uses) -> None:
    """Names imported before, aliases, subclasses, bound methods and running threads count; nothing is replaced."""
    program.write("shop", "def buy(): return 1\nclass Order:\n    def send(self): return 2\nclass Rush(Order): ...")
    shop = program.load("shop")
    buy, code, send, rush = shop.buy, id(shop.buy.__code__), shop.Order().send, shop.Rush()
    begin, done = threading.Event(), threading.Event()

    def work() -> None:
        with user_context("user_1"):
            begin.wait(10)
            buy()
            done.set()

    threading.Thread(target=work).start()
    program.track("shop:buy=buy;shop:Order.send=send")
    begin.set()
    assert done.wait(10)
    assert (buy(), send(), rush.send()) == (1, 2, 2)
    assert uses.new() == ["buy", "buy", "send", "send"]
    assert shop.buy is buy
    assert id(buy.__code__) == code


@needs_watching
def test_functions_that_share_code_are_told_apart(program: Program, uses: Uses) -> None:
    """Of the functions that a factory or a decorator makes, only the named one counts."""
    program.write(
        "shop",
        """
        def make(result):
            def buy(): return result
            return buy
        first, second = make(1), make(2)
        def plain(function):
            def inner(): return function()
            return inner
        @plain
        def one(): return 1
        @plain
        def two(): return 2
        found = []
        for number in range(2):
            def looped(): return number
            found.append(looped)
        """,
    )
    program.track("shop:first=first;shop:one=one;shop:looped=looped")
    shop = program.load("shop")
    for function in (shop.first, shop.second, shop.make(3), shop.one, shop.two, *shop.found):
        function()
    assert uses.new() == ["first", "one", "looped"]


DECORATED = """
import functools, json
def login_required(function):
    @functools.wraps(function)
    def check(user, *args):
        return function(user, *args) if user else "login"
    return check
@login_required
@login_required
def export(user): return "exported"
@functools.lru_cache
def cached(): return "cached"
@login_required
@functools.lru_cache
def cached_inside(user): return "cached"
@functools.wraps(json.dumps)
def dumps(value): return json.dumps(value)
other = login_required(export)
"""


def test_decorated_functions_count_the_calls_that_reach_them(program: Program, uses: Uses) -> None:
    """An answer of a decorator is no use; an answer of a cache is one; a look-alike is told from its model."""
    program.write("shop", DECORATED)
    program.track({f"shop:{name}": name for name in ("export", "cached", "cached_inside", "dumps", "other")})
    shop = program.load("shop")
    assert [shop.export("user"), shop.export("")] == ["exported", "login"]
    assert uses.new() == ["export"]
    assert [shop.cached(), shop.cached()] == ["cached", "cached"]
    assert [shop.cached_inside("user"), shop.cached_inside("user")] == ["cached", "cached"]
    assert uses.new() == ["cached", "cached", "cached_inside", "cached_inside"]
    assert [shop.dumps(1), shop.json.dumps(2)] == ["1", "2"]
    assert uses.new() == ["dumps"]


def test_a_look_alike_of_a_tracked_function_is_tracked_itself(program: Program, uses: Uses) -> None:
    """A function with the `functools.wraps` of a function that is tracked, too, counts under its own name."""
    program.write("shop", "def export(): return 1")
    program.write("office", "import functools, shop\n@functools.wraps(shop.export)\ndef export_v2(): return 2")
    program.track("shop:export=export;office:export_v2=export_v2")
    office = program.load("office")
    assert [office.export_v2(), office.shop.export()] == [2, 1]
    assert uses.new() == ["export_v2", "export"]


def test_every_call_of_a_dispatching_function_counts(program: Program, uses: Uses) -> None:
    """A call of a function with `singledispatch` counts, whichever registered function answers."""
    program.write(
        "shop",
        """
        import functools
        @functools.singledispatch
        def render(value): return "object"
        @render.register
        def _(value: int): return "int"
        """,
    )
    program.track("shop:render=render")
    shop = program.load("shop")
    assert [shop.render("text"), shop.render(1)] == ["object", "int"]
    assert uses.new() == ["render", "render"]


def test_a_module_that_replaces_itself_is_tracked(program: Program, uses: Uses) -> None:
    """In the module that stands in `sys.modules` after an import, the named functions count, with options, too."""
    program.write(
        "shop",
        """
        import sys, types
        def export(file_format): return file_format
        class Archive:
            def store(self): ...
        module = types.ModuleType(__name__)
        module.__file__ = __file__
        module.export, module.Store = export, Archive
        sys.modules[__name__] = module
        """,
    )
    program.track({"shop:export": {"feature": "export", "capture": ["file_format"]}, "shop:Archive.store": "store"})
    shop = program.load("shop")
    shop.export("csv")
    shop.Store().store()
    assert uses.new() == ["export", "store"]
    assert uses.events.one("export").properties["file_format"] == "csv"


def test_methods_of_a_hierarchy_count_once(program: Program, uses: Uses) -> None:
    """An override that calls super counts the base once; an inherited method counts for the named subclass alone."""
    program.write(
        "shop",
        """
        class Base:
            def save(self): return "base"
            def send(self): return type(self).__name__
            @classmethod
            def load(cls): return cls.__name__
        class Order(Base):
            def save(self): return super().save()
        class Offer(Base): ...
        """,
    )
    program.track("shop:Base.save=save;shop:Order.send=send_order;shop:Order.load=load_order")
    shop = program.load("shop")
    assert [shop.Order().save(), shop.Base().save()] == ["base", "base"]
    assert uses.new() == ["save", "save"]
    assert [kind().send() for kind in (shop.Order, shop.Base, shop.Offer)] == ["Order", "Base", "Offer"]
    assert [kind.load() for kind in (shop.Order, shop.Base, shop.Offer)] == ["Order", "Base", "Offer"]
    assert uses.new() == ["send_order", "load_order"]


def test_decorated_already_is_never_twice(program: Program, uses: Uses) -> None:
    """A function with `track_feature`, or with two names in the settings, makes one event."""
    program.write("shop", "from ts_autotrack import track_feature\n@track_feature\ndef buy(): ...\ndef pay(): ...")
    program.write("site", "from shop import pay")
    program.write("office", "from shop import pay")
    program.track("shop:buy=purchase;shop:pay=pay;office:pay=office_pay")
    shop, office = program.load("shop"), program.load("office")
    shop.buy()
    office.pay()
    assert uses.new() == ["buy", "pay"]
    for key in ("shop:buy", "office:pay"):
        assert program.status(key)[2:4] == ("tracked", "")
        assert "tracks it already" in program.status(key).why


def test_reload_tracks_the_new_function_once(program: Program, uses: Uses) -> None:
    """After `importlib.reload` the new function counts, once."""
    program.write("shop", "def buy(): return 1")
    program.track("shop:buy=buy")
    shop = program.load("shop")
    program.write("shop", "def buy(): return 'new'")
    importlib.reload(shop)
    assert shop.buy() == "new"
    importlib.reload(shop)
    shop.buy()
    assert uses.new() == ["buy", "buy"]


def test_options_are_those_of_the_decorator(program: Program, uses: Uses) -> None:
    """`capture`, `on`, `action`, `feature_type` and `properties` do as with `track_feature`."""
    program.write("shop", "def buy(item): return 1\ndef fail(): raise LookupError")
    program.track(
        {
            "shop:buy": {
                "feature": "purchase",
                "capture": ["item"],
                "action": "bought",
                "feature_type": "core",
                "properties": {"source": "web"},
            },
            "shop:fail": {"feature": "failure", "on": "error"},
        }
    )
    shop = program.load("shop")
    shop.buy("book")
    with pytest.raises(LookupError):
        shop.fail()
    bought, failed = (event.properties for event in uses.events.all)
    expected = {"feature_name": "purchase", "action": "bought", "feature_type": "core", "source": "web", "item": "book"}
    assert bought == expected
    assert failed["feature_name"] == "failure"
    assert program.status("shop:buy").mechanism == program.status("shop:fail").mechanism == "wrapped"


def test_replaced_functions_name_their_holders(program: Program, uses: Uses, caplog: pytest.LogCaptureFixture) -> None:
    """If only a wrapper can track a function, one warning names the modules that imported it by name before."""
    program.write("shop", "def buy(item): ...\ndef pay(item): ...")
    program.write("early", "from shop import buy")
    early = program.load("early")
    program.track({"shop:buy": {"feature": "buy", "capture": "item"}, "shop:pay": {"feature": "pay", "on": "always"}})
    sys.modules["shop"].buy(1)
    early.buy(1)
    assert uses.new() == ["buy"]
    (record,) = caplog.records
    assert "shop:buy; shop:pay: only calls by this name are tracked" in record.getMessage()
    assert "hold the function from before: early." in record.getMessage()


def test_names_that_lead_to_no_function(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """A misspelt name, a class, a property and a value are one warning that says how to name a function."""
    program.write("shop", "def buy(): ...\nclass Order:\n    @property\n    def total(self): ...\nlimit = 7")
    program.track("shop:bye=a;shop:Order=b;shop:Order.total=c;shop:limit=d;shop:limit.x=e;shop:Order.totals=f")
    program.load("shop")
    states = {key.partition(":")[2]: status.state for key, status in program.targets.statuses.items()}
    assert states == {
        "bye": "missing",
        "Order": "not callable",
        "Order.total": "not callable",
        "limit": "not callable",
        "limit.x": "missing",
        "Order.totals": "missing",
    }
    (record,) = caplog.records
    text = record.getMessage()
    assert "'shop:bye': the module shop has no 'bye': did you mean 'buy'?" in text
    assert "'shop:Order': a class is no function: name a method, such as Order.__init__" in text
    assert "'shop:Order.total': a property is read, not called: decorate the function below @property" in text
    assert "'shop:limit.x': 'limit' is no class but a int" in text
    assert "and 1 more" in text


def test_all_functions_of_a_module(program: Program, uses: Uses) -> None:
    """A "*" names the public functions that a module defines; names of their own win, and "*" keeps their names."""
    program.write(
        "shop",
        """
        from json import dumps
        def buy(): ...
        def pay(): ...
        def _secret(): ...
        class Order: ...
        """,
    )
    program.track({"shop:*": "*", "shop:pay": "payment"})
    shop = program.load("shop")
    for function in (shop.buy, shop.pay, shop._secret, shop.Order):
        function()
    shop.dumps(1)
    assert uses.new() == ["buy", "payment"]
    assert {(status.key, status.feature) for status in program.targets.statuses.values()} == {
        ("shop:buy", "buy"),
        ("shop:pay", "payment"),
    }
    program.targets.report_missing()  # at the end of the process: raises nothing


def test_all_functions_of_a_module_have_names_of_their_own(program: Program, uses: Uses) -> None:
    """With "*", lambdas and functions of a decorator without `wraps` are told apart; an alias is no feature."""
    program.write(
        "shop",
        """
        __all__ = ["alias", "pay", "buy", "total", "tax"]
        def plain(function):
            def inner(): return function()
            return inner
        @plain
        def buy(): ...
        @plain
        def pay(): ...
        def total(): ...
        alias = total
        tax = lambda: 0
        """,
    )
    program.track({"shop:*": "*"})
    shop = program.load("shop")
    for function in (shop.buy, shop.pay, shop.total, shop.tax):
        function()
    assert uses.new() == ["buy", "pay", "total", "tax"]


def test_modules_that_do_not_exist_are_reported(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """At the end, a module missing in a package that was imported is a warning; one that was not needed is none."""
    program.write("store.__init__", "")
    program.write("store.views", "def buy(): ...")
    program.track("store.views:buy=a;store.wiews:buy=b;elsewhere.views:x=c")
    program.load("store")
    program.targets.report_missing()
    (record,) = caplog.records
    assert record.getMessage().endswith("the setting features names modules that do not exist: store.wiews:buy")
    assert [program.status(key).state for key in ("store.views:buy", "store.wiews:buy", "elsewhere.views:x")] == [
        "waiting",
        "missing",
        "waiting",
    ]


def test_modules_of_a_finder_in_front_are_reported(
    program: Program, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At the end, a module that a finder in front of the launcher's has imported is a warning."""

    class InFront:
        """Finds modules past the launcher's finder."""

        find_spec = PathFinder.find_spec

    program.write("shop", "def buy(): ...")
    program.track("shop:buy=buy")
    monkeypatch.setattr(sys, "meta_path", [InFront, *sys.meta_path])
    program.load("shop")
    program.targets.report_missing()
    (record,) = caplog.records
    assert "another finder in sys.meta_path" in record.getMessage()
    assert "shop. Decorate" in record.getMessage()


def test_callables_of_other_kinds_are_replaced(program: Program, uses: Uses) -> None:
    """A function in C and an object with `__call__` count by their names."""
    program.write("shop", "from math import sqrt\nclass Buy:\n    def __call__(self): return 1\nbuy = Buy()")
    program.track("shop:sqrt=root;shop:buy=buy")
    shop = program.load("shop")
    assert (shop.sqrt(4), shop.buy()) == (2, 1)
    assert uses.new() == ["root", "buy"]
    assert is_tracked(shop.sqrt)


def test_objects_that_raise_and_lazy_objects_stop_nothing(
    program: Program, uses: Uses, caplog: pytest.LogCaptureFixture
) -> None:
    """An object that raises wherever it is touched leaves the other names tracked; a "*" sets up no lazy object."""
    program.write(
        "shop",
        """
        class Broken:
            def __getattribute__(self, name): raise RuntimeError(name)
        class Lazy:
            asked = []
            def __getattr__(self, name): self.asked.append(name)
        broken, lazy = Broken(), Lazy()
        def buy(): ...
        """,
    )
    program.track({"shop:broken": "a", "shop:broken.name": "b", "shop:*": "*"})
    shop = program.load("shop")
    shop.buy()
    program.targets.report_missing()
    assert (uses.new(), shop.Lazy.asked, program.faults) == (["buy"], [], [])
    assert program.status("shop:broken").why == "reading it raises RuntimeError"
    assert len(caplog.records) == 1


def test_methods_of_c_classes_are_refused(program: Program) -> None:
    """A method of a class in C cannot be replaced: the state says so."""
    program.write("shop", "from collections import OrderedDict")
    program.track("shop:OrderedDict.popitem=pop")
    program.load("shop")
    status: Any = program.status("shop:OrderedDict.popitem")
    assert status.state == "failed"
    assert "cannot be replaced" in status.why

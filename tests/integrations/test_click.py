"""Command lines of click: each command is a feature, whatever made or found the command."""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

import ts_autotrack
from ts_autotrack import bind_user, current_user, suppress, track, track_feature, user_context
from ts_autotrack.integrations.click import instrument_click, uninstrument_click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.conftest import Inspector


def run(program: click.Command, *lines: str) -> list[int]:
    """Run a program with each command line; return the exit statuses."""
    return [CliRunner().invoke(program, line.split()).exit_code for line in lines]


def used(inspector: Inspector) -> list[tuple[str, str, str]]:
    """Return feature (or the event's name), action and user of all events."""
    assert ts_autotrack.flush()
    return [
        (
            item["properties"].get("feature_name", item["event_name"]),
            item["properties"].get("action", ""),
            item["user_id"],
        )
        for item in inspector.items()
    ]


def features(inspector: Inspector) -> list[str]:
    """Return the features of all events."""
    return [feature for feature, _, _ in used(inspector)]


def tool(*, user: Callable[[], object] | None = lambda: "ann", names: Mapping[str, str | None] | None = None) -> Any:
    """Return an instrumented program with the commands `status` and `report export`."""

    @click.group("tool")
    def program() -> None: ...

    instrument_click(program, user, features=names)

    @program.command("status")
    def status() -> None: ...

    @program.group("report")
    def report() -> None: ...

    @report.command("export")
    @click.argument("file", default="-")
    @click.option("--secret")
    def export(file: str, secret: str) -> None:
        if file == "bad":
            raise ValueError(secret)

    return program


def test_commands_of_nested_groups(inspector: Inspector) -> None:
    """The path without the program is the feature; options and arguments stay here; groups are no features."""
    assert run(tool(), "report export plan.csv --secret s3", "status") == [0, 0]
    assert used(inspector) == [("report_export", "report export", "ann"), ("status", "status", "ann")]
    (export, _) = inspector.items()
    assert set(export["properties"]) == {"feature_name", "action", "interface"}
    assert export["properties"]["interface"] == "cli"


def end_with(kind: str) -> None:
    """End a command in one of many ways."""
    context = click.get_current_context()
    ends: dict[str, Callable[[], object]] = {
        "return": lambda: "value",
        "exit": context.exit,
        "exit 1": lambda: context.exit(1),
        "sys": sys.exit,
        "sys 0": lambda: sys.exit(0),
        "sys 2": lambda: sys.exit(2),
        "sys text": lambda: sys.exit("failed"),
        "Exit": lambda: _raise(click.exceptions.Exit()),
        "Exit 3": lambda: _raise(click.exceptions.Exit(3)),
        "abort": context.abort,
        "fail": lambda: context.fail("no"),
        "exception": lambda: _raise(RuntimeError()),
        "interrupt": lambda: _raise(KeyboardInterrupt()),
    }
    ends[kind]()


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        *(("return", 0), ("exit", 0), ("sys", 0), ("sys 0", 0), ("Exit", 0)),
        *(("exit 1", 1), ("sys 2", 2), ("sys text", 1), ("Exit 3", 3), ("abort", 1), ("fail", 2), ("exception", 1)),
        ("interrupt", 1),
    ],
)
def test_exit_status_0_is_success(inspector: Inspector, kind: str, status: int) -> None:
    """A command that ends with exit status 0 in any way has been used, and no other."""
    program = click.Command("once", callback=lambda: end_with(kind))
    instrument_click(program, lambda: "ann")
    assert run(program, "") == [status]
    assert used(inspector) == ([] if status else [("once", "once", "ann")])


def test_help_and_usage_errors_are_no_use(inspector: Inspector) -> None:
    """`--help`, `--version`, wrong options, unknown and missing commands make no event."""
    program = click.version_option("1")(tool())
    lines = "--help", "--version", "report export --help", "-- --help", "report export --wrong", "reports", "report"
    assert run(program, *lines) == [0, 0, 0, 0, 2, 2, 2]
    assert used(inspector) == []


def test_failure_leaves_the_program_as_it_was(inspector: Inspector) -> None:
    """The exception passes unchanged, with a traceback without our lines; so does the value of the command."""
    program = tool()
    with pytest.raises(ValueError, match="s3") as caught:
        program.main(["report", "export", "bad", "--secret", "s3"], standalone_mode=False)
    if sys.version_info >= (3, 11):
        assert not any("ts_autotrack/integrations" in str(entry.path) for entry in caught.traceback)
    program.add_command(click.Command("value", callback=lambda: 7))
    assert program.main(["value"], standalone_mode=False) == 7
    assert features(inspector) == ["value"]


@pytest.mark.parametrize("user", [None, lambda: "env"])
def test_callback_of_an_option_names_the_user_of_its_run(inspector: Inspector, user: Callable[[], str] | None) -> None:
    """`bind_user` in the callback of an option holds for this run, before `user=`, and not for the next run."""

    def bind(_: click.Context, __: click.Parameter, value: str | None) -> None:
        if value:
            bind_user(value)

    @click.group()
    @click.option("--as", "who", callback=bind)
    def program(who: str | None) -> None: ...

    program.command("run")(lambda: None)
    instrument_click(program, user=user)
    for arguments in (["--as", "ann", "run"], ["run"], ["--as", "bob", "nothing"], ["run"]):
        CliRunner().invoke(program, arguments)
    assert ts_autotrack.flush()
    assert [item["user_id"] for item in inspector.items()] == ["ann"] + (["env"] * 2 if user else [])
    assert current_user().user_id is None


def test_group_itself_is_a_command(inspector: Inspector) -> None:
    """A group that runs without a command is a feature then, and only then."""

    @click.group("tool", invoke_without_command=True)
    def program() -> None: ...

    @program.group("report", invoke_without_command=True)
    @click.pass_context
    def report(context: click.Context) -> None:
        if context.invoked_subcommand is None:
            context.exit()

    report.add_command(click.Command("export"))
    instrument_click(program, lambda: "ann")
    assert run(program, "", "report", "report export") == [0, 0, 0]
    assert features(inspector) == ["tool", "report", "report_export"]


def test_chained_commands(inspector: Inspector) -> None:
    """Each command of a chain counts for itself."""
    program = click.Group("tool", chain=True)
    for name, end in (("build", "return"), ("deploy", "exception")):
        program.add_command(click.Command(name, callback=lambda end=end: end_with(end)))
    instrument_click(program, lambda: "ann")
    assert run(program, "build build", "build deploy") == [0, 1]
    assert features(inspector) == ["build", "build", "build"]


def test_aliases_are_the_same_feature(inspector: Inspector) -> None:
    """A command found by a prefix, or registered twice, has one feature. The action is the name as typed."""

    class Aliased(click.Group):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
            return next((self.commands[name] for name in sorted(self.commands) if name.startswith(cmd_name)), None)

    program = Aliased("tool")
    save = click.Command("save-all")
    for name in (None, "write"):
        program.add_command(save, name)
    program.add_command(click.Command("list-users"), "users")
    instrument_click(program, lambda: "ann")
    assert run(program, "sa", "write", "us", "users") == [0, 0, 0, 0]
    actions = [("save_all", "sa"), ("save_all", "write"), ("users", "us"), ("users", "users")]
    assert used(inspector) == [(*action, "ann") for action in actions]


def test_commands_loaded_when_they_are_called(inspector: Inspector) -> None:
    """Lazy groups, in a lazy group, name their features by the path: their commands may all have one name."""

    class Lazy(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
            return ["one", "two"]

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
            return Lazy("cli") if cmd_name == "more" else click.Command("cli")

    program = Lazy("tool")
    instrument_click(program, lambda: "ann")
    assert run(program, "one", "more two", "--help") == [0, 0, 0]
    assert features(inspector) == ["one", "more_two"]


def test_groups_that_find_commands_on_their_own(inspector: Inspector) -> None:
    """Collections, overridden `resolve_command` and overridden `invoke` keep their way."""

    class Own(click.Group):
        def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:  # noqa: ARG002 - click's signature
            return "made", click.Command("made"), args[1:]

    class Direct(click.Group):
        def invoke(self, ctx: click.Context) -> Any:
            command = self.get_command(ctx, "inner")
            assert command is not None
            ctx.invoked_subcommand = "inner"
            with command.make_context("inner", [], parent=ctx) as inner:
                return command.invoke(inner)

    for program in (click.CommandCollection("tool", sources=[tool()]), Own("tool"), Direct("tool")):
        program.add_command(click.Command("inner"))
        instrument_click(program, lambda: "ann")
        assert run(program, "status") == [0]
    assert features(inspector) == ["status", "made", "inner"]


def test_command_run_by_another_one_belongs_to_the_typed_one(inspector: Inspector) -> None:
    """`ctx.invoke` and `ctx.forward` make no event of their own, unless the function is decorated."""

    @click.group("tool")
    def program() -> None: ...

    @program.command("build")
    def build() -> None: ...

    @program.command("sign")
    @track_feature("signing")
    def sign() -> None: ...

    @program.command("publish")
    @click.pass_context
    def publish(context: click.Context) -> None:
        context.invoke(build)
        context.forward(sign)

    instrument_click(program, lambda: "ann")
    assert run(program, "publish") == [0]
    assert used(inspector) == [("signing", "sign", "ann"), ("publish", "publish", "ann")]


@pytest.mark.parametrize("above", [True, False])
def test_decorated_command_sends_its_own_event_only(inspector: Inspector, *, above: bool) -> None:
    """One command makes one event: the decorator's, also behind other decorators."""
    program = tool()

    def function(context: click.Context) -> None: ...

    feature = track_feature("own")
    if above:
        program.add_command(feature(click.Command("run", callback=click.pass_context(function))))
    else:
        program.add_command(click.Command("run", callback=click.pass_context(feature(function))))
    assert run(program, "run") == [0]
    assert features(inspector) == ["own"]


def test_other_names(inspector: Inspector) -> None:
    """`features=` names commands by their path, and leaves out those named None."""
    program = tool(names={" report  export": "csv_export", "status": None})
    assert run(program, "report export", "status") == [0, 0]
    assert used(inspector) == [("csv_export", "report export", "ann")]


def test_user_is_asked_in_the_context_of_the_command(inspector: Inspector) -> None:
    """`user` sees the objects of the command; help asks nobody; each run asks again."""
    asked: list[str] = []

    def user() -> tuple[str, str]:
        context = click.get_current_context()
        asked.append(context.command_path)
        return context.obj, "acme"

    program = tool(user=user)
    for name in ("ann", "bob"):
        for line in ("status", "--help"):
            CliRunner().invoke(program, line.split(), obj=name)
    assert [user for _, _, user in used(inspector)] == ["ann", "bob"]
    assert asked == ["tool status", "tool status"]
    assert {item["context"]["group_id"] for item in inspector.items()} == {"acme"}


def test_login_belongs_to_the_user_who_logged_in(inspector: Inspector) -> None:
    """`bind_user` names the user of the run, and of no other run in the process."""
    program = tool(user=lambda: None)

    def log_in() -> None:
        track("signing_in")
        bind_user("ann")

    program.add_command(click.Command("login", callback=log_in))
    assert run(program, "login", "status") == [0, 0]
    assert sorted(used(inspector)) == [("login", "login", "ann"), ("signing_in", "", "ann")]
    assert ts_autotrack.stats().dropped == {"unattributed": 1}


def test_user_around_the_program(inspector: Inspector) -> None:
    """Without `user` the events belong to the user acting around; a resolver that knows nobody is not overruled."""
    for program in (tool(user=None), tool(user=lambda: None)):
        with user_context("outer"):
            assert run(program, "status") == [0]
    with suppress():
        run(tool(), "status")
    assert used(inspector) == [("status", "status", "outer")]


def test_failing_resolver_leaves_the_command_alone(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in `user` is logged; the command ends as usual, its event has no user."""

    def user() -> None:
        raise LookupError

    assert run(tool(user=user), "status") == [0]
    assert used(inspector) == []
    assert ts_autotrack.stats().dropped == {"unattributed": 1}
    assert "LookupError" in caplog.text


def test_resolver_that_ends_the_program_is_nobody(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """A profile's loader may call `sys.exit` without a login: the exit status stays the command's."""

    def user() -> None:
        sys.exit("not logged in")

    assert run(tool(user=user), "status", "report export bad") == [0, 1]
    assert used(inspector) == []
    assert ts_autotrack.stats().dropped == {"unattributed": 1}
    assert "SystemExit" in caplog.text


def test_second_call_changes_nothing(inspector: Inspector) -> None:
    """Only the first call counts; a program is undone, and can be instrumented again."""
    program = tool()
    original = click.Group
    instrument_click(program, lambda: "other", features={"status": "other"})
    run(program, "status")
    uninstrument_click(program)
    uninstrument_click(program)
    assert type(program) is original
    run(program, "status")
    instrument_click(program, lambda: "bob")
    run(program, "status")
    assert used(inspector) == [("status", "status", "ann"), ("status", "status", "bob")]


def test_programs_that_share_a_command(inspector: Inspector) -> None:
    """Each program has its user; a program that is not instrumented makes no events."""
    shared = click.Command("shared")
    programs = [click.Group("tool", commands={"shared": shared}) for _ in range(3)]
    instrument_click(programs[0], lambda: "ann")
    instrument_click(programs[1], lambda: "bob")
    for program in programs:
        run(program, "shared")
    run(shared, "")
    assert used(inspector) == [("shared", "shared", "ann"), ("shared", "shared", "bob")]


def test_instrumented_program_within_another(inspector: Inspector) -> None:
    """The outer program counts; within a program that is not instrumented the inner one counts, by its whole path."""
    inner, outer, plain = tool(user=lambda: "inner"), click.Group("outer"), click.Group("plain")
    for program in (outer, plain):
        program.add_command(inner, "tool")
    instrument_click(outer, lambda: "outer")
    assert run(outer, "tool status") == run(plain, "tool status") == run(inner, "status") == [0]
    paths = [("tool_status", "tool status", "outer"), ("tool_status", "tool status", "inner")]
    assert used(inspector) == [*paths, ("status", "status", "inner")]


def test_commands_stay_commands(inspector: Inspector) -> None:
    """Copies of a tracked command are their own; class, name and `isinstance` are as before."""
    program = tool()
    run(program, "status")
    status = program.commands["status"]
    twin = copy.copy(status)
    twin.callback = lambda: 5
    program.add_command(twin, "twin")
    assert program.main(["twin"], standalone_mode=False) == 5
    assert (type(status).__name__, type(status).__module__) == ("Command", "click.core")
    assert features(inspector) == ["status", "twin"]


def test_untrackable_command_runs(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """A command whose class cannot be replaced runs untracked, with one warning."""

    class Fixed(click.Command):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "__class__":
                raise AttributeError(name)
            super().__setattr__(name, value)

    program = tool()
    program.add_command(Fixed("fixed"))
    assert run(program, "fixed", "fixed", "status") == [0, 0, 0]
    assert features(inspector) == ["status"]
    assert caplog.text.count("cannot be tracked") == 1


def test_wrong_arguments_raise() -> None:
    """A wrong argument is refused, and named."""

    async def user() -> None: ...

    class Async(click.Group):  # as asyncclick's are
        async def invoke(self, ctx: click.Context) -> None: ...

    wrong: list[tuple[str, type[Exception], tuple[Any, ...], dict[str, Any]]] = [
        ("click command", TypeError, (print,), {}),
        ("click command", TypeError, (click.Group,), {}),
        ("click command", TypeError, (Async("tool"),), {}),
        ("user=", TypeError, (tool(), user), {}),
        ("user=", TypeError, (tool(), "ann"), {}),
        ("features=", TypeError, (tool(),), {"features": ["status"]}),
        ("features=", ValueError, (tool(),), {"features": {"status": ""}}),
        ("features=", ValueError, (tool(),), {"features": {" ": "status"}}),
    ]
    for message, error, arguments, options in wrong:
        with pytest.raises(error, match=message):
            instrument_click(*arguments, **options)


def test_warning_names_the_entry_of_features(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """An event without a user names its command, and the ways to name the user of a program without other code."""
    assert run(tool(user=None), "status") == [0]
    assert features(inspector) == []
    assert "of feature 'status' (features.status): it has no user" in caplog.text
    assert "TS_AUTOTRACK_USER" in caplog.text

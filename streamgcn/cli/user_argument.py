"""Commands about one user, whose id may begin with a dash."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from consumer.event.rules import ID_BYTES


def _user(user: str) -> str:
    if not 0 < len(user.encode()) <= ID_BYTES:
        raise typer.BadParameter(f"an id has 1 to {ID_BYTES} bytes")
    return user


User = Annotated[
    str,
    typer.Argument(help="The user's id; behind -- if it is the name of an option.", callback=_user),
]


class ForUser(TyperCommand):
    """A command whose only argument is the user's id: what is no option is the id."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the id behind the options and `--`, where a dash has no meaning.

        An id that is the name of an option has to stand there already; the error says so.
        """
        if "--" in args:
            return super().parse_args(ctx, args)
        options, others = self._apart(args, set(ctx.help_option_names))
        # Of two others, one is a misspelt option: the parser says which.
        arranged = [*options, "--", *others] if len(others) == 1 else [*options, *others]
        try:
            return super().parse_args(ctx, arranged)
        except typer.TyperException as error:
            dashed = [each for each in args if each.startswith("-")]
            if dashed and all(each.startswith("-") for each in others):
                error.message += f" If {dashed[0]} is the id: {ctx.command_path} -- {dashed[0]}"
            raise

    def _apart(self, args: list[str], flags: set[str]) -> tuple[list[str], list[str]]:
        """The options with their values, and the other arguments."""
        with_value: set[str] = set()
        for each in self.params:
            if isinstance(each, TyperOption):
                (flags if each.is_flag else with_value).update((*each.opts, *each.secondary_opts))
        options, others, left = [], [], list(args)
        while left:
            argument = left.pop(0)
            if argument in with_value:
                options += [argument, *left[:1]]
                del left[:1]
            elif argument in flags or _has_value(argument, with_value):
                options.append(argument)
            else:
                others.append(argument)
        return options, others


def _has_value(argument: str, names: set[str]) -> bool:
    """Whether it is an option together with its value, as in --seconds=5 or -n5."""
    name, equals, _ = argument.partition("=")
    return (bool(equals) and name in names) or (argument[:2] in names and argument[2:].isdigit())

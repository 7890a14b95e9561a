"""Commands for what scorers believe: the models that may reign, the switch of the online one, and signatures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from fraud_service.cli.options import Bootstrap
from fraud_service.cli.output import say, say_json
from fraud_service.config import settings
from fraud_service.domain.events import rfc3339

app = typer.Typer()
models_app = typer.Typer(no_args_is_help=True, help="List pretrained models, sign one, and roll back to one.")
online_app = typer.Typer(no_args_is_help=True, help="Switch the online model off and on, in all scorers at once.")
app.add_typer(models_app, name="models")
app.add_typer(online_app, name="online")


@models_app.command("list")
def models_list(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False, bootstrap: Bootstrap = None
) -> None:
    """Print the model that processes start with and those that were promoted, and which one reigns."""
    from fraud_service.admin import models

    found = models.model_statuses(settings.load(bootstrap_servers=bootstrap))
    if as_json:
        say_json(json.dumps([msgspec.structs.asdict(one) for one in found], indent=2))
        return
    for one in found:
        since = "at the start" if one.promoted_at is None else rfc3339(one.promoted_at)
        signature = f"signed with {one.signed_with}" if one.signed_with else "unsigned"
        say(f"{'*' if one.is_active else ' '} {one.version:40} {since:24} {signature}")


@models_app.command("rollback")
def models_rollback(version: str, bootstrap: Bootstrap = None) -> None:
    """Let a model reign again that was promoted before, or that processes start with: from the next snapshot on."""
    from fraud_service.admin import models

    models.roll_back(settings.load(bootstrap_servers=bootstrap), version)
    say(f"promoted: {version}")


@models_app.command("sign")
def models_sign(folder: Path) -> None:
    """Sign the folder of a model that `train --out` wrote: with keys, processes start only with a signed one."""
    from fraud_service.admin import models

    say(f"signed with {models.sign(settings.load(), folder)}: {folder}")


@online_app.command("off")
def online_off(bootstrap: Bootstrap = None) -> None:
    """Score with the pretrained model alone, at once and until it is switched on. Learning goes on."""
    _switch(bootstrap, online=False)


@online_app.command("on")
def online_on(bootstrap: Bootstrap = None) -> None:
    """Let the online model take part again, with the weight that the snapshot in force gives it."""
    _switch(bootstrap, online=True)


def _switch(bootstrap: str | None, *, online: bool) -> None:
    from fraud_service.admin import models

    models.switch_online_model(settings.load(bootstrap_servers=bootstrap), online=online)
    say(f"the online model is {'on' if online else 'off'}")


@app.command()
def sign(
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Also sign unsigned records: you vouch for what is on the topics.")
    ] = False,
    unbound: Annotated[
        bool, typer.Option("--unbound", help="Also sign records of a version that signed without FRAUD_DEPLOYMENT.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Sign models, risk and snapshots anew: when signing begins, and before an old key is removed. Stop the learner."""
    from fraud_service.admin import resign

    chosen = settings.load(bootstrap_servers=bootstrap)
    for line in resign.re_sign(chosen, unsigned=unsigned, unbound=unbound, really=yes):
        say(line)

"""The hosts of a cluster on the screen: a table, then why some are not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from rave_dist.terminal import console
from rave_dist.terminal.console import escape

if TYPE_CHECKING:
    from rave_dist.cluster.inventory import HostReport


def show(hosts: Sequence[HostReport]) -> None:
    """Prints a row per host; below it the reasons of those that are not there, with the output of the command that failed."""
    table = Table(box=None, pad_edge=False)
    for column in ("host", "role", "state"):
        table.add_column(column)
    for column in ("CPUs", "GPUs"):
        table.add_column(column, justify="right")
    for host in hosts:
        is_alive = host.state == "alive"
        style = "red" if host.is_missing else "green" if is_alive else "dim"
        resources = (f"{host.cpus:g}", f"{host.gpus:g}") if is_alive else ("", "")
        table.add_row(escape(host.address), host.role, f"[{style}]{host.state}[/]", *resources)
    console.show_table(table)
    for host in hosts:
        if host.reason:
            _show_reason(host)


def _show_reason(host: HostReport) -> None:
    sign = "[red]✗[/]" if host.is_missing else "[dim]·[/]"
    console.err.print(f"{sign} {escape(host.address)}: {escape(host.reason)}")
    if host.command:
        console.err.print(f"    [bold]command[/] {escape(host.command)}")
    for line in host.output:
        console.err.print(f"    [dim]|[/] {escape(line)}")
    if host.fix and host.is_missing:
        console.err.print(f"    [bold]fix[/] {escape(host.fix)}")

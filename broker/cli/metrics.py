"""
``metrics``: what the broker counts, as Prometheus reads it.

This module refuses to make sense of it.
"""

import click

from broker.cli import options
from broker.client import Where


@click.command()
@options.which_broker
def metrics(*, where: Where) -> None:
    """
    Print what the broker counts, in the text format of Prometheus.

        curl --unix-socket …/admin.sock http://broker/v1/admin/metrics
    """
    with options.admin(where) as client:
        click.echo(client.call("metrics")["text"], nl=False)

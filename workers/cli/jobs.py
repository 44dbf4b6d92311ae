"""Commands for jobs of the pool: submit, jobs, status, watch, pause, resume, cancel."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from workers.cli.output import json_option, show_status, status_facts
from workers.cli.progress import progress_bar

if TYPE_CHECKING:
    from generator.production.pipeline.run_costs import Pace
    from workers.client import Client


@click.command("submit")
@click.argument("spec", type=click.Path())
@click.option("--watch", "follow", is_flag=True, help="Follow the job until it ends.")
@json_option
@click.pass_context
def submit_command(ctx: click.Context, spec: str, follow: bool, as_json: bool) -> None:
    """Submit the job in SPEC (a YAML file) to the pool.

    Submitting the same spec again gives the same job. A local bundle is pushed to the store root first.
    """
    from workers.client import Client

    status = Client().submit(spec)
    if follow and not status.ended:
        ctx.invoke(watch_command, job=status.job, as_json=as_json)
        return
    titles = {
        "committed": "already committed",
        "paused": "submitted before, and paused; continue it with `latentmill resume`",
    }
    show_status(status, as_json=as_json, title=titles.get(status.state, "submitted"))


@click.command("jobs")
@click.option("--tenant", help="Only this tenant's jobs.")
@json_option
def jobs_command(tenant: str | None, as_json: bool) -> None:
    """List the jobs of the pool, the newest first."""
    from workers.client import Client

    found = Client().jobs(tenant=tenant)
    if as_json:
        click.echo(json.dumps([status_facts(status) for status in found], indent=2))
        return
    if not found:
        click.echo("no jobs")
        return
    width = max(len(status.job) for status in found)
    click.secho(f"{'job':<{width}}  {'state':<9}  {'shards':>13}  {'images':>21}  tenant", bold=True)
    for status in found:
        shards, images = f"{status.shards_done}/{status.shards}", f"{status.samples_done:,}/{status.samples:,}"
        click.echo(f"{status.job:<{width}}  {status.state:<9}  {shards:>13}  {images:>21}  {status.tenant}")


@click.command("status")
@click.argument("job")
@json_option
def status_command(job: str, as_json: bool) -> None:
    """Show the state of JOB: shards and images, URL, speed, time of each stage, failed shards and their errors."""
    from workers.client import Client

    client = Client()
    show_status(client.status(job), as_json=as_json, pace=_pace(client, job))


@click.command("watch")
@click.argument("job")
@json_option
def watch_command(job: str, as_json: bool) -> None:
    """Follow JOB until it ends. Exit code 1 unless it is committed."""
    from generator.errors import JobFailed
    from workers.client import Client

    client = Client()
    last = client.status(job)
    with progress_bar(job, last.samples, quiet=as_json) as bar:
        for last in client.watch(job):
            bar(last.samples_done)
    if last.state != "committed":
        raise JobFailed("job", f"{job} to be committed", f"{last.state}: {last.error or 'by request'}")
    show_status(last, as_json=as_json, title="committed", pace=_pace(client, job))


def _pace(client: Client, job: str) -> Pace | None:
    """The speed of ``job``; ``None`` if it cannot be read. The command does not fail for it."""
    from generator.errors import LatentmillError

    try:
        return client.pace(job)
    except LatentmillError:
        return None


@click.command("pause")
@click.argument("job")
@json_option
def pause_command(job: str, as_json: bool) -> None:
    """Pause JOB: running shards finish, and no further shard starts until `latentmill resume`."""
    from workers.client import Client

    status = Client().pause(job)
    show_status(status, as_json=as_json, title="" if status.state == "paused" else "not paused: it has ended")


@click.command("resume")
@click.argument("job")
@click.option("--tenant", default="default", show_default=True, help="Tenant of the job, if only its URL is known.")
@click.option(
    "--new-environment",
    is_flag=True,
    help="Let workers with a different environment (device, versions) make the missing shards; the dataset lists both.",
)
@json_option
def resume_command(job: str, tenant: str, new_environment: bool, as_json: bool) -> None:
    """Continue JOB where it stopped: after a pause, after a cancellation, or once the cause of a failure is fixed.

    JOB is the job's name, or the URL of its build (DESTINATION/NAME/builds/ID); the URL is enough even if Redis and the
    store root have lost the job. Shards that were given up are tried again.
    """
    from workers.client import Client

    show_status(Client().resume(job, tenant=tenant, new_environment=new_environment), as_json=as_json)


@click.command("cancel")
@click.argument("job")
@json_option
def cancel_command(job: str, as_json: bool) -> None:
    """Stop JOB. Finished shards stay; `latentmill resume` or submitting the spec again continues it."""
    from workers.client import Client

    show_status(Client().cancel(job), as_json=as_json)

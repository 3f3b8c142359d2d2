"""Submits a library to a cluster, once: a second submission finds the job of the first."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rave_dist.identity import content_id
from rave_dist.leases import hold_library
from rave_dist.library.manifest import Library
from rave_dist.progress import SILENT, Progress
from rave_dist.submission.package import check_reachable, package_manifest
from rave_dist.submission.upload import upload_recordings

if TYPE_CHECKING:
    from rave_dist.cluster.jobs import Job, Jobs

_MANIFEST_ID = "manifest"


@dataclass(frozen=True)
class Submission:
    """A job that runs a library, whether this submission started it, and the jobs of its cluster."""

    job: Job
    is_new: bool
    jobs: Jobs


def connect() -> Jobs:
    """The jobs of the cluster that the environment names.

    Raises:
        ClusterError: it names none, or the cluster does not answer.
    """
    from rave_dist.cluster.jobs import Jobs  # imported here: Ray takes seconds

    return Jobs()


def submit_library(
    library: Library,
    only: list[str] | None = None,
    *,
    deadline: str | None = None,
    shared_store: bool = False,
    progress: Progress = SILENT,
    connect: Callable[[], Jobs] = connect,
) -> Submission:
    """Uploads a library's recordings and starts a job that runs it, unless one runs already.

    Args:
        library: the library.
        only: names of the instruments; None or an empty list selects all.
        deadline: of ``rave-dist run``.
        shared_store: whether every host mounts the store's folder under its path.
        progress: receives stages and MiB.
        connect: gives the jobs of the cluster.

    Raises:
        LibraryError: there is no such instrument, or one that refers to files that the cluster cannot reach.
        StoreError: the store is a folder of this machine, or cannot be written.
        AudioError: no instrument has a recording.
        InUseError: another command is at work on the library.
        ClusterError: the cluster does not answer or does not accept the job.
    """
    names = library.select(only)
    check_reachable(library, names, shared_store=shared_store)
    name = job_name(library)
    options = [*(word for each in only or () for word in ("--only", each)), *(("--deadline", deadline) if deadline else ())]
    notes = {_MANIFEST_ID: _manifest_id(library, options)}
    progress.stage("connecting to the cluster")
    jobs = connect()
    running = jobs.running(name)
    if running is None:
        library.store.check_writable()
        with hold_library(library.store, library.name, "submit", say=progress.say):
            manifest = package_manifest(library, upload_recordings(library, names, progress=progress))
        progress.stage("submitting the job")
        job, is_new = jobs.submit(name, _command(manifest, options), notes)
    else:
        job, is_new = running, False
    if job.notes.get(_MANIFEST_ID) != notes[_MANIFEST_ID]:
        progress.say(f"the job {job.id} runs another manifest or has other options; submit this one when it has ended")
    return Submission(job, is_new, jobs)


def job_name(library: Library) -> str:
    """The name of a library's jobs: the same for the same name and store."""
    return f"{library.name}-{content_id({'library': library.name, 'store': library.store.uri})}"


def _command(manifest: str, options: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "ray_jobs.run_library", manifest, *options])


def _manifest_id(library: Library, options: Sequence[str]) -> str:
    return content_id({"manifest": library.manifest.model_dump(mode="json", exclude_unset=True), "options": list(options)})

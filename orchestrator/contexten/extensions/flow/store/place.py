"""Where a database may be: in a folder that is there or can be made, on a disk of this machine."""

from __future__ import annotations

from pathlib import Path

import psutil

from ..errors import StoreError, StoreReadOnly

_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afpfs", "webdav", "davfs", "9p", "ncpfs", "fuse.sshfs",
     "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse", "glusterfs", "fuse.glusterfs", "ceph", "lustre", "afs"}
)  # fmt: skip


def file_of(database: Path) -> Path:
    """The file that a database's path leads to, whatever links are on the way: its locks lie beside it, where everybody
    finds the same ones. Raises StoreError where `~` names nobody, or links lead in a circle."""
    try:
        database = database.expanduser()
    except RuntimeError as error:
        raise StoreError(
            "The database's path begins with ~, and there is no such user.", next="Name another file with --db."
        ) from error
    try:
        return database.resolve()
    except (RuntimeError, OSError) as error:
        raise StoreError(
            "The database's path cannot be followed: its links lead in a circle.",
            next="Mend the links, or name another file with --db.",
        ) from error


def network_file_system(folder: Path) -> str | None:
    """The type of the network file system that a folder is on; None where it is on none, or nobody can tell."""
    folder = folder.resolve()
    try:
        partitions = psutil.disk_partitions(all=True)
    except OSError:
        return None
    places = [
        (len(Path(partition.mountpoint).parts), partition.fstype.lower())
        for partition in partitions
        if folder.is_relative_to(partition.mountpoint)
    ]
    kind = max(places, key=lambda place: place[0], default=(0, ""))[1]
    return kind if kind in _NETWORK_FILE_SYSTEMS else None


def make_folder(database: Path) -> None:
    """Make the folder of a database where it is missing. Raises StoreError where none can be there, StoreReadOnly."""
    if network_file_system(database.parent) is not None:
        raise StoreError(
            "The folder of the database is on a network file system, where SQLite's locks do not hold.",
            next="Choose a database on a local disk with --db.",
        )
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError("The folder of the database is a file.", next="Choose another database with --db.") from error
    except OSError as error:
        raise StoreReadOnly(
            f"The folder of the database cannot be made: {error.strerror}.",
            next="Choose another database with --db.",
        ) from error
    if database.is_dir():
        raise StoreError("The database's path is a folder.", next="Name a file with --db.")

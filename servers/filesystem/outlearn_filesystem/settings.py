"""Settings of the filesystem server."""

from pydantic import Field

from outlearn.settings import ServerSettings

MIB = 1024 * 1024


class FilesystemSettings(ServerSettings):
    """Keeps each agent's files and snapshots; every workspace has the same limits."""

    port: int = Field(8004, ge=0, le=65535, description="Port of the HTTP transport; 0 picks a free one.")
    max_file_bytes: int = Field(10 * MIB, gt=0, description="Largest file in a workspace.")
    max_workspace_bytes: int = Field(256 * MIB, gt=0, description="Largest sum of a workspace's files.")
    max_files: int = Field(5_000, gt=0, description="Most files and folders in a workspace.")
    max_snapshots: int = Field(1_000, gt=0, description="Most snapshots of one agent.")
    max_snapshot_bytes: int = Field(
        2048 * MIB,
        gt=0,
        description="No more snapshots of an agent whose snapshots hold this much: equal files once, and every name.",
    )
    search_seconds: float = Field(5.0, gt=0, le=60, description="Time limit of one `grep` or `find_files`.")

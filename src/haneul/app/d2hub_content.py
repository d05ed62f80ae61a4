"""D2Hub's content: in files of its folder, or in an object store."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from haneul.app.d2hub_folder import is_empty, mark_of
from haneul.d2hub.adapters.file_blobs import FileBlobs
from haneul.d2hub.adapters.object_blobs import ObjectBlobs
from haneul.d2hub.adapters.object_settings import ObjectSettings
from haneul.kernel.errors import ConflictError
from haneul.kernel.files import write_atomically

_PRIVATE: Final = 0o600


async def opened_store(data: Path, objects: ObjectSettings | None, *, redirects: bool) -> FileBlobs | ObjectBlobs:
    """Open the store of a folder, and see that it is the one that the folder's database speaks of.

    Raises ConflictError, BlobStoreAwayError.
    """
    mark = data / "store.id"
    if objects is None:
        if mark.exists():
            raise ConflictError(f"the content of {data} is in an object store", hint="name it with --store")
        return FileBlobs(data)
    if not mark.exists():
        if not is_empty(data) or mark_of(data).exists():
            raise ConflictError(
                f"the content of {data} is in its files", hint="name another folder, or leave out --store"
            )
        write_atomically(mark, secrets.token_hex(16), mode=_PRIVATE)
    store = ObjectBlobs(data, objects, redirects=redirects)
    try:
        await store.claim(mark.read_text())
        # A start that was killed left a mark before there was a database, but then there is no content either.
        if not (data / "hub.db").exists() and not await store.is_empty():
            raise ConflictError(
                f"{data} has no hub.db any more; with a new one all content of the bucket would be collected",
                hint="restore hub.db from its copy, or begin anew in another folder, with another bucket",
            )
    except BaseException:
        store.close()
        raise
    return store

"""What a registry refuses, with the codes of the OCI distribution specification ("Error Codes").

Each error has a code of ours, for people and the command line, and the specification's, for registry clients.
"""

from __future__ import annotations

from typing import ClassVar

from haneul.kernel.errors import (
    ConflictError,
    ForbiddenError,
    HaneulError,
    InvalidInputError,
    NotFoundError,
    QuotaExceededError,
    UnauthenticatedError,
    UnavailableError,
)


class BlobUnknownError(NotFoundError):
    """The repository has no such blob."""

    code = "blob-unknown"
    title = "The blob is not in this repository"
    registry_code: ClassVar[str] = "BLOB_UNKNOWN"


class BlobUploadInvalidError(InvalidInputError):
    """An upload cannot go on like this: a part is out of order, cut short or does not fit its Content-Range."""

    code = "blob-upload-invalid"
    title = "The upload cannot go on like this"
    http_status = 400
    registry_code: ClassVar[str] = "BLOB_UPLOAD_INVALID"


class RangeNotSatisfiableError(BlobUploadInvalidError):
    """A range begins or ends where the content does not: in an upload, not where the last part ended."""

    code = "range-not-satisfiable"
    title = "The range does not fit"
    http_status = 416

    def __init__(self, detail: str, *, hint: str = "", size: int = 0) -> None:
        super().__init__(detail, hint=hint)
        self.size = size


class BlobUploadUnknownError(NotFoundError):
    """There is no such upload: it ended, was cancelled or abandoned, or belongs to another repository."""

    code = "blob-upload-unknown"
    title = "The upload is not known"
    registry_code: ClassVar[str] = "BLOB_UPLOAD_UNKNOWN"


class DigestInvalidError(InvalidInputError):
    """A digest is malformed, of an algorithm that is not supported, or not that of the content."""

    code = "digest-invalid"
    title = "The digest is not valid"
    http_status = 400
    registry_code: ClassVar[str] = "DIGEST_INVALID"


class ManifestBlobUnknownError(NotFoundError):
    """A manifest refers to blobs or manifests that its repository does not have."""

    code = "manifest-blob-unknown"
    title = "The manifest refers to what is not there"
    registry_code: ClassVar[str] = "MANIFEST_BLOB_UNKNOWN"


class ManifestInvalidError(InvalidInputError):
    """A manifest is not of its media type's form."""

    code = "manifest-invalid"
    title = "The manifest is not valid"
    http_status = 400
    registry_code: ClassVar[str] = "MANIFEST_INVALID"


class ManifestTooLargeError(ManifestInvalidError):
    """A manifest has more bytes than the registry takes."""

    code = "manifest-too-large"
    title = "The manifest is too large"
    http_status = 413


class ManifestUnknownError(NotFoundError):
    """The repository has no such tag or manifest."""

    code = "manifest-unknown"
    title = "The manifest is not in this repository"
    registry_code: ClassVar[str] = "MANIFEST_UNKNOWN"


class NameInvalidError(InvalidInputError):
    """A repository's name or a tag is not of the specification's form."""

    code = "name-invalid"
    title = "The name is not valid"
    http_status = 400
    registry_code: ClassVar[str] = "NAME_INVALID"


class NameUnknownError(NotFoundError):
    """There is no such repository."""

    code = "name-unknown"
    title = "The repository is not known"
    registry_code: ClassVar[str] = "NAME_UNKNOWN"


class UnsupportedError(InvalidInputError):
    """The registry does not do this, or not now: something that is in use cannot be deleted."""

    code = "unsupported"
    title = "This is not supported"
    http_status = 405
    registry_code: ClassVar[str] = "UNSUPPORTED"


class RequestInvalidError(InvalidInputError):
    """A parameter or form of a request cannot be read."""

    code = "request-invalid"
    title = "The request cannot be read"
    http_status = 400
    registry_code: ClassVar[str] = "UNSUPPORTED"


class TagImmutableError(ConflictError):
    """A tag of this repository, once set, stays what it is."""

    code = "tag-immutable"
    title = "The tag cannot be changed"
    registry_code: ClassVar[str] = "DENIED"


class ImageInUseError(ConflictError):
    """An image that a cluster runs is not deleted, nor is a tag that names it."""

    code = "image-in-use"
    title = "The image is in use"
    registry_code: ClassVar[str] = "DENIED"


class StorageFullError(UnavailableError):
    """The disk or store is full; what was being written is gone, everything acknowledged is there."""

    code = "storage-full"
    title = "No space is left"
    http_status = 507
    registry_code: ClassVar[str] = "UNAVAILABLE"


class MirrorReadOnlyError(UnsupportedError):
    """The project is a mirror of another registry: images come from there, not by pushes."""

    code = "mirror-read-only"
    title = "A mirror takes no pushes"


class UpstreamError(UnavailableError):
    """The registry that a project mirrors does not answer, or fails, and what was asked for is not here yet.

    ``rest`` is for how many seconds it should not be asked at all; None if that says nothing of other requests.
    """

    code = "upstream-failed"
    title = "The mirrored registry failed"
    http_status = 502

    def __init__(self, detail: str, *, hint: str = "", rest: float | None = None) -> None:
        super().__init__(detail, hint=hint)
        self.rest = rest


class UpstreamLimitedError(UpstreamError):
    """The registry that a project mirrors refuses more requests for a while."""

    code = "upstream-limited"
    title = "The mirrored registry takes no more requests for now"
    http_status = 429


class UpstreamRefusedError(UpstreamError):
    """The registry that a project mirrors does not let this one pull, by the credentials that it has."""

    code = "upstream-refused"
    title = "The mirrored registry refuses"
    http_status = 403
    registry_code: ClassVar[str] = "DENIED"


class UpstreamWrongError(UpstreamError):
    """The registry that a project mirrors sent something else than was asked for; nothing of it was kept."""

    code = "upstream-wrong"
    title = "The mirrored registry sent something else"


class BlobStoreAwayError(UnavailableError):
    """The store of content does not answer, or not as it should; what was acknowledged is there when it is back."""

    code = "blob-store-away"
    title = "The store of content does not answer"
    registry_code: ClassVar[str] = "UNAVAILABLE"


def registry_code(error: HaneulError) -> str:
    """Return the specification's code of an error."""
    own = getattr(error, "registry_code", None)
    if isinstance(own, str):
        return own
    match error:
        case UnauthenticatedError():
            return "UNAUTHORIZED"
        case ForbiddenError() | QuotaExceededError():
            return "DENIED"
        case UnavailableError():
            return "TOOMANYREQUESTS" if error.http_status == 429 else "UNAVAILABLE"
        case InvalidInputError():
            return "UNSUPPORTED"
        case _:
            return "UNKNOWN"

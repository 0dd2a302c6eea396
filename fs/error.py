"""What can go wrong with a file.

VendoError
├── BadPath          fs.bad_path         400
├── NoSuchFile       fs.not_found        404
├── IsDirectory      fs.is_directory     400
├── NotDirectory     fs.not_directory    400
├── IsStream         fs.is_stream        400
├── KeyRequired      fs.key_required     400
├── BodyTooLarge     fs.too_large        413
├── FileExists       fs.exists           409
├── DirectoryInUse   fs.not_empty        409
├── HandleClosed     fs.handle_closed    400
├── Unsupported      fs.unsupported      405
└── AccessDenied     fs.access_denied    403
"""

from core.error import InvalidInput, NotFound, Refused, VendoError


class BadPath(InvalidInput):
    """This is not a valid path."""

    code = "fs.bad_path"
    remedy = "Use /-separated names without `.`, `..`, `%`, control characters or empty parts."


class NoSuchFile(NotFound):
    """There is no file or directory with this path."""

    code = "fs.not_found"
    remedy = "List the directory above it, or read its README."


class IsDirectory(InvalidInput):
    """This is a directory."""

    code = "fs.is_directory"
    remedy = "List it, or read its README."


class NotDirectory(InvalidInput):
    """This is a file, not a directory."""

    code = "fs.not_directory"


class IsStream(InvalidInput):
    """This is a stream, without a whole content."""

    code = "fs.is_stream"
    remedy = "Watch it, or ask with `?watch=0` for what is there now."


class KeyRequired(InvalidInput):
    """This call has an effect and needs an idempotency key."""

    code = "fs.key_required"
    remedy = "Send an Idempotency-Key: the same for each retry of the same request."


class BodyTooLarge(InvalidInput):
    """The body is longer than this file takes."""

    code = "fs.too_large"
    status = 413
    remedy = "Send less."


class FileExists(VendoError):
    """There is something with this path already."""

    code = "fs.exists"
    status = 409
    remedy = "Choose another name, or remove what is there first."


class DirectoryInUse(VendoError):
    """There is something in this directory."""

    code = "fs.not_empty"
    status = 409
    remedy = "Remove what is in it first."


class HandleClosed(InvalidInput):
    """This handle is closed, or was not opened for this."""

    code = "fs.handle_closed"
    remedy = "Open the file again, with the flags for what is wanted."


class Unsupported(VendoError):
    """This file does not support this operation."""

    code = "fs.unsupported"
    status = 405
    remedy = "Read the README of its directory."


class AccessDenied(Refused):
    """The mount does not allow this."""

    code = "fs.access_denied"
    remedy = "Read /mounts to see what is allowed."

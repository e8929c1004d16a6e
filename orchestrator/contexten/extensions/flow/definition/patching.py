"""RFC 6902 patches on definitions."""

from __future__ import annotations

from typing import Any

import jsonpatch
import jsonpointer

from ..errors import FlowError, InvalidArguments, Issue


def apply_patch(document: Any, patch: Any) -> Any:
    """A new document with the patch applied; the given one stays as it is.

    Raises InvalidArguments, with an issue that names the operation, where the patch is no RFC 6902 list
    or does not fit the document.
    """
    check_patch(patch)
    current = document
    for index, operation in enumerate(patch):
        try:
            current = jsonpatch.apply_patch(current, [operation])
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as problem:
            reason = str(problem).split("\n")[0][:200]
            raise _refusal(f"/{index}", f"the operation cannot be applied: {reason}") from None
        except (TypeError, KeyError, ValueError, IndexError, AttributeError, RecursionError):
            raise _refusal(f"/{index}", "the operation is no operation of RFC 6902, or leads nowhere") from None
    return current


def check_patch(patch: Any) -> None:
    """Raises InvalidArguments where it is no list of objects, whatever it is to be applied to."""
    if not isinstance(patch, list) or not all(isinstance(operation, dict) for operation in patch):
        raise _refusal("", "a patch is a list of operations such as {op, path, value}")


def _refusal(path: str, message: str) -> FlowError:
    return InvalidArguments(
        f"the patch is refused at {path or 'its top'}: {message}",
        next="read the definition as it is now (get_flow_status with detail=definition) and correct the patch",
        issues=[Issue(path=path, code="invalid_patch", message=message)],
    )

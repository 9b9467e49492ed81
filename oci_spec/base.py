"""What all models share: strict types, Go's integer ranges, unknown properties kept and not minded.

runtime-spec, "Extensibility": a runtime must not fail on properties it does not know. Go programs write `null` for what
is empty, so every optional property may be null.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Model(BaseModel):
    """Base of every model. Attributes are snake_case, JSON names the specification's."""

    model_config = ConfigDict(strict=True, extra="allow", validate_by_name=True, validate_by_alias=True)


Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
UInt16 = Annotated[int, Field(ge=0, le=2**16 - 1)]
UInt32 = Annotated[int, Field(ge=0, le=2**32 - 1)]
UInt64 = Annotated[int, Field(ge=0, le=2**64 - 1)]
NonEmpty = Annotated[str, StringConstraints(min_length=1)]
AbsolutePath = Annotated[str, StringConstraints(pattern=r"^/")]
#: Minor versions only add properties, which an older reader ignores: any 1.x will do.
Version = Annotated[str, StringConstraints(pattern=r"^1\.[0-9]+\.[0-9]+([-+].*)?$")]
#: A name in an object whose names are free.
Key = NonEmpty
Annotations = dict[Key, str]

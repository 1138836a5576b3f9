"""What of attributes and texts is not stored."""

from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    model_validator,
)

from schemas.redaction import RedactionRules, matching_any, pattern_fault

_SHORTEST_HASH_KEY = 16


def _checked_pattern(pattern: str) -> str:
    if fault := pattern_fault(pattern):
        raise ValueError(fault)
    return pattern


_Key = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_Pattern = Annotated[str, StringConstraints(min_length=1, max_length=1_000), AfterValidator(_checked_pattern)]


class RedactSettings(BaseModel):
    """``[storage.redact]`` in meshflow.toml: applied to spans, metric points and log records before their
    rows are made. The hash key is never shown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    credentials: bool = Field(
        True,
        description="Mask credentials: of keys like authorization or password, and bearer tokens, JWTs, keys, passwords in all texts.",
    )
    drop: tuple[_Key, ...] = Field(
        (),
        max_length=500,
        description="Keys of attributes that are not stored; `*` stands for any characters, case does not matter.",
    )
    hash: tuple[_Key, ...] = Field(
        (),
        max_length=500,
        description="Keys of attributes of which a digest is stored (32 hex digits of SHA-256): equal values stay equal.",
    )
    mask: tuple[_Key, ...] = Field(
        (), max_length=500, description="Keys of attributes of which `****` is stored."
    )
    mask_patterns: tuple[_Pattern, ...] = Field(
        (),
        max_length=100,
        description="Regular expressions (RE2) whose matches in attributes, names, messages and log bodies are stored as `****`.",
    )
    hash_key: SecretStr = Field(
        SecretStr(""),
        description="Secret (16 characters or more) that digests are made with (HMAC), so that nobody can look values up; empty: none.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if 0 < len(self.hash_key.get_secret_value()) < _SHORTEST_HASH_KEY:
            raise ValueError(f"hash_key has {_SHORTEST_HASH_KEY} characters or more, or none")
        if self.mask_patterns and (fault := pattern_fault(matching_any(self.mask_patterns))):
            raise ValueError(f"mask_patterns, all of them together: {fault}")
        asked = [key.lower() for keys in (self.drop, self.hash, self.mask) for key in set(keys)]
        if twice := sorted({key for key in asked if asked.count(key) > 1}):
            raise ValueError(f"{twice[0]} is in two of drop, hash and mask; leave it in one")
        return self

    @property
    def rules(self) -> RedactionRules:
        """For processing."""
        return RedactionRules(
            self.drop,
            self.hash,
            self.mask,
            self.mask_patterns,
            self.hash_key.get_secret_value(),
            self.credentials,
        )

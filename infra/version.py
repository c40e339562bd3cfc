"""The version of this code, as in CHANGELOG.md."""

VERSION = "0.1.0"

"""The rules, the engines, and what stands between them and the world."""

#: The release, as CHANGELOG.md has it.
__version__ = "0.6.0"

"""Every secret that stands in this repository, for anybody to read; a long one is refused within another one too."""

# How examples begin, and those of the tests.
BEGINNINGS = (
    "a key ",
    "a-token-",
    "development-only-",
    "one key ",
    "the key of ",
    "the password of ",
    "the secret key of ",
    "the-password-that-",
)
# The others, in lower case. tests/project/test_published_secrets.py says which are missing.
PUBLISHED = frozenset(
    {
        "!a-token,with:what/a?url@would%encode",
        "a long password",
        "a-password-for-the-index",
        "at least 32 bytes, as openssl rand -hex 32 makes them",
        "correct horse",
        "correct horse battery staple",
        "for-prometheus",
        "never-in-a-log",
        'pa"ss\\wörd/+ 1',
        "the right one",
    }
)

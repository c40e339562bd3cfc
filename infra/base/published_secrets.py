"""Every secret that stands in this repository, for anybody to read; a long one may also be the beginning of one."""

# In lower case. tests/project/test_published_secrets.py says which are missing.
PUBLISHED = frozenset(
    {
        "!a-token,with:what/a?url@would%encode",
        "a key that is known to the test, to sign with",
        "a key that the test has as well, to sign with",
        "a key with which the tests sign as well",
        "a long password",
        "a-password-for-the-index",
        "a-token-for-services-that-introspect",
        "a-token-for-your-prometheus",
        "a-token-of-another-service",
        "a-token-that-other-services-have",
        "at least 32 bytes, as openssl rand -hex 32 makes them",
        "correct horse",
        "correct horse battery staple",
        "development-only-events-token",
        "development-only-metrics-token",
        "development-only-mysql-migrate-password",
        "development-only-mysql-password",
        "development-only-mysql-root-password",
        "development-only-redis-password",
        "development-only-secret-key-of-32-bytes-or-more",
        "for-prometheus",
        "never-in-a-log",
        "one key for every start of the service",
        "one key that all instances have in common",
        'pa"ss\\wörd/+ 1',
        "the key of this very service, kept secret",
        "the password of mysql_username",
        "the password of redis",
        "the password of the user berth_migrate",
        "the secret key of environment",
        "the-password-that-migrates",
        "the-password-that-serves",
    }
)

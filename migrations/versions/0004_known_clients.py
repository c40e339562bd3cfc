"""From where each account has been logged in to."""

from infra.sql.definitions import add_index, execute

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    execute(
        """
        CREATE TABLE IF NOT EXISTS known_clients (
            account_id {ID} NOT NULL,
            network VARCHAR(64) NOT NULL,
            expires_at BIGINT NOT NULL,
            PRIMARY KEY (account_id, network)
        ) {TABLE}
        """
    )
    add_index("known_clients", "known_clients_expires_at", "expires_at")

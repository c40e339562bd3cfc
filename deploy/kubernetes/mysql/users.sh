# Sourced by MySQL's image while it makes its volume: the user that it has made may then change rows only, and another one
# tables. docs/mysql.md has the same rights.
migrate_password=${MIGRATE_PASSWORD:-$(cat /run/secrets/mysql_migrate_password)}
migrate_password=$(printf %s "$migrate_password" | sed "s/[\\\\']/\\\\&/g")
docker_process_sql <<SQL
REVOKE ALL PRIVILEGES, GRANT OPTION FROM '$MYSQL_USER'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON \`$MYSQL_DATABASE\`.* TO '$MYSQL_USER'@'%';
CREATE USER '${MYSQL_USER}_migrate'@'%' IDENTIFIED BY '$migrate_password';
GRANT CREATE, ALTER, DROP, INDEX, SELECT, INSERT, UPDATE, DELETE ON \`$MYSQL_DATABASE\`.* TO '${MYSQL_USER}_migrate'@'%';
SQL
unset migrate_password

#!/usr/bin/env bash
# Start MLflow's server with its own users and passwords.
#
# The first administrator comes from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, else from
# ~/.mlflow/credentials, where MLflow's clients look as well. Secrets are handed on in the environment, never
# as arguments, which every process of the machine can read.
#
#   LOLA_MLFLOW_HOST       address to listen on (127.0.0.1)
#   LOLA_MLFLOW_PORT       port (5000)
#   LOLA_MLFLOW_NAMES      host names that clients may use, comma-separated (localhost)
#   LOLA_MLFLOW_DATABASE   runs, users and permissions (a SQLite file); a PostgreSQL password goes into PGPASSWORD
#   LOLA_MLFLOW_ARTIFACTS  models and pictures: a folder or a bucket (a folder next to the database)
#   LOLA_MLFLOW_HOME       where files are kept (~/.mlflow/server)
set -euo pipefail
umask 077

home=${LOLA_MLFLOW_HOME:-$HOME/.mlflow/server}
host=${LOLA_MLFLOW_HOST:-127.0.0.1}
port=${LOLA_MLFLOW_PORT:-5000}
database=${LOLA_MLFLOW_DATABASE:-sqlite:///$home/mlflow.db}
mkdir -p "$home"

if [[ $database =~ ://[^/@]*:[^/@]*@ ]]; then
    echo "start_mlflow.sh: LOLA_MLFLOW_DATABASE holds a password; put it into PGPASSWORD" >&2
    exit 1
fi

credential() {
    local file=$HOME/.mlflow/credentials
    if [[ -r $file ]]; then
        sed -n "s/^$1 *= *//p" "$file" | head -n 1
    fi
}
MLFLOW_AUTH_ADMIN_USERNAME=${MLFLOW_TRACKING_USERNAME:-$(credential mlflow_tracking_username)}
MLFLOW_AUTH_ADMIN_PASSWORD=${MLFLOW_TRACKING_PASSWORD:-$(credential mlflow_tracking_password)}
if [[ -z $MLFLOW_AUTH_ADMIN_USERNAME || -z $MLFLOW_AUTH_ADMIN_PASSWORD ]]; then
    echo "start_mlflow.sh: no administrator; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" >&2
    exit 1
fi

# The key of form tokens; it need not outlive the server.
MLFLOW_FLASK_SERVER_SECRET_KEY=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')

cat > "$home/auth.ini" <<INI
[mlflow]
default_permission = READ
database_uri = $database
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
INI

export MLFLOW_AUTH_ADMIN_USERNAME MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY
export MLFLOW_AUTH_CONFIG_PATH=$home/auth.ini
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
exec mlflow server --app-name basic-auth --host "$host" --port "$port" --workers 1 \
    --allowed-hosts "${LOLA_MLFLOW_NAMES:-localhost}:$port,127.0.0.1:$port,localhost:$port" \
    --backend-store-uri "$database" \
    --artifacts-destination "${LOLA_MLFLOW_ARTIFACTS:-$home/artifacts}"

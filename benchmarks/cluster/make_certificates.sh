#!/usr/bin/env bash
# Make what the scheduler, the workers and the driver of a Dask cluster need to talk over TLS:
#
#   bash make_certificates.sh FOLDER [DAYS]
#
# FOLDER must be seen by every host; it is made here, for your eyes only. Into it go
#
#   authority.pem    the certificate of an authority made for this folder; its key is thrown away
#   dask.pem         one certificate for all roles, signed by the authority
#   dask.key         its private key: whoever can read it can run code on the workers
#   environment.sh   the settings of Dask that name these files; source it before every command
#
# Dask asks both sides of a connection for a certificate of this authority, and does not look at host names: one pair
# serves scheduler, workers and driver on any host. To replace the pair, make a new folder. DAYS is how long the
# certificates are valid; 365 by default.

set -euo pipefail
umask 077

if (( $# < 1 || $# > 2 )) || [[ $1 == -* ]]; then
    echo "usage: bash make_certificates.sh FOLDER [DAYS]" >&2
    exit 2
fi
folder=$1
days=${2:-365}
if ! [[ $days =~ ^[1-9][0-9]*$ ]]; then
    echo "make_certificates.sh: DAYS is '$days'; give a whole number of days" >&2
    exit 2
fi
if ! command -v openssl > /dev/null; then
    echo "make_certificates.sh: no openssl on this host; install it, or run this on a host that has it" >&2
    exit 2
fi
if [[ -e $folder/dask.key ]]; then
    echo "make_certificates.sh: $folder has a key already; remove the folder, or give another" >&2
    exit 2
fi
mkdir -p -- "$folder"
chmod 700 -- "$folder"
folder=$(cd -- "$folder" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/settings.cnf" << 'SETTINGS'
[req]
distinguished_name = name
prompt = no

[name]
CN = dask

[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash

[pair]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:dask
SETTINGS

# What openssl says is shown only where it fails.
quietly() {
    "$@" 2> "$work/said" || { cat "$work/said" >&2; exit 1; }
}
new_key() {
    quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

new_key "$work/authority.key"
quietly openssl req -x509 -new -sha256 -key "$work/authority.key" -days "$days" -subj "/CN=dask authority" \
    -config "$work/settings.cnf" -extensions authority -out "$work/authority.pem"
new_key "$work/dask.key"
quietly openssl req -new -sha256 -key "$work/dask.key" -config "$work/settings.cnf" -out "$work/dask.csr"
quietly openssl x509 -req -sha256 -in "$work/dask.csr" -CA "$work/authority.pem" -CAkey "$work/authority.key" \
    -CAcreateserial -days "$days" -extfile "$work/settings.cnf" -extensions pair -out "$work/dask.pem"
quietly openssl verify -CAfile "$work/authority.pem" "$work/dask.pem" > /dev/null

{
    echo "# Source this before 'dask scheduler', 'dask worker', 'dask cuda worker' and 'streamcurate'."
    printf 'export DASK_DISTRIBUTED__COMM__TLS__CA_FILE=%q\n' "$folder/authority.pem"
    for role in SCHEDULER WORKER CLIENT; do
        printf 'export DASK_DISTRIBUTED__COMM__TLS__%s__CERT=%q\n' "$role" "$folder/dask.pem"
        printf 'export DASK_DISTRIBUTED__COMM__TLS__%s__KEY=%q\n' "$role" "$folder/dask.key"
    done
    echo "# Listen with TLS where no protocol is given, and never talk to another host without."
    echo "export DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME=tls"
    echo "export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True"
} > "$work/environment.sh"

cp "$work/authority.pem" "$work/dask.pem" "$work/environment.sh" "$folder"
# Last: the folder is complete when it is there.
cp "$work/dask.key" "$folder"
echo "$folder: certificates for $days days; before each command: . $folder/environment.sh"

#!/bin/sh
# Makes the passwords that the stack's parts show to each other, once, each into the volumes of
# those that need it. Deleting the volumes `credentials-*` makes new ones at the next start,
# apart from PostgreSQL's, which keeps the password it was created with.
set -eu
umask 022
cd /credentials

made() { # name: a value made at the first start; it begins with a letter, as NATS wants it
	[ -s "kept/$1" ] || {
		printf 'p%s' "$(od -An -v -tx1 -N24 /dev/urandom | tr -d ' \n')" >"kept/$1.new"
		mv "kept/$1.new" "kept/$1"
	}
	cat "kept/$1"
}

database=$(made postgres) token=$(made grpc)
webhook=$(made nats-webhook) messaging=$(made nats-messaging) health=$(made nats-health)

printf '%s' "$database" >postgres/password
cat >nats/passwords.env <<END
NATS_WEBHOOK_PASSWORD=$webhook
NATS_MESSAGING_PASSWORD=$messaging
NATS_HEALTH_PASSWORD=$health
END
for service in webhook messaging health; do
	printf '%s' "$token" >"$service/grpc_token"
done
printf 'nats://webhook:%s@nats:4222' "$webhook" >webhook/nats_url
printf 'nats://messaging:%s@nats:4222' "$messaging" >messaging/nats_url
printf 'nats://health:%s@nats:4222' "$health" >health/nats_url
printf 'postgresql://switchboard:%s@postgres/switchboard' "$database" >messaging/database_url

# Volumes that no image has prepared belong to root.
chown 10001:10001 /nats-data

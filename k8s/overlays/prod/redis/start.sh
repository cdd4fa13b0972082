#!/bin/sh
# A Redis or its Sentinel among three: asks the other Sentinels who is primary, and follows; the first pod is if none knows.
# Usage: start.sh redis|sentinel
set -eu
: "${POD_NAME:?}" "${PEERS:?names of all pods, with their domain}"
config="${CONFIG:-/etc/redis/config}" secrets="${SECRETS:-/etc/redis/secrets}" port="${REDIS_PORT:-6379}"
sentinel_port="${SENTINEL_PORT:-26379}" domain="${DOMAIN-.redis-nodes}"

primary() {
  for peer in $PEERS; do
    found="$(timeout 2 redis-cli -h "$peer" -p "$sentinel_port" sentinel get-master-addr-by-name primary 2>/dev/null | head -n 1)"
    [ -n "$found" ] && { echo "$found"; return; }
  done
  echo "${PEERS%% *}"
}

me="$POD_NAME$domain" lead="$(primary)"
case "$1" in
  redis)
    set -- redis-server "$config/redis.conf" --replica-announce-ip "$me" --port "$port"
    [ "$lead" = "$me" ] || set -- "$@" --replicaof "$lead" "$port"
    exec "$@"
    ;;
  sentinel)
    until timeout 2 redis-cli -h "$lead" -p "$port" ping 2>/dev/null | grep -q 'PONG\|NOAUTH'; do sleep 1; lead="$(primary)"; done
    {
      cat "$config/sentinel.conf"
      echo "sentinel announce-ip $me"
      echo "sentinel monitor primary $lead $port 2"
      echo "sentinel down-after-milliseconds primary 5000"
      echo "sentinel failover-timeout primary 15000"
      cat "$secrets/sentinel-auth.conf"
    } >/tmp/sentinel.conf
    exec redis-server /tmp/sentinel.conf --sentinel
    ;;
esac

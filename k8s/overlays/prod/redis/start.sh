#!/bin/sh
# A Redis or its Sentinel among three: asks the Sentinels who is primary, and follows. Where none answers, as after the loss
# of all, it is who the Sentinel of this pod knew last; and the first pod where there has never been any.
# Usage: start.sh redis|sentinel [option of redis-server ...]
set -eu
: "${POD_NAME:?}" "${PEERS:?names of all pods, with their domain}"
config="${CONFIG:-/etc/redis/config}" secrets="${SECRETS:-/etc/redis/secrets}" port="${REDIS_PORT:-6379}"
sentinel_port="${SENTINEL_PORT:-26379}" domain="${DOMAIN-.redis-nodes}"
known="${STATE:-/data}/sentinel.conf"

primary() {
  for peer in $PEERS; do
    found="$(timeout 2 redis-cli -h "$peer" -p "$sentinel_port" sentinel get-master-addr-by-name primary 2>/dev/null | head -n 1)"
    [ -n "$found" ] && { echo "$found"; return; }
  done
  last="$(sed -n 's/^sentinel monitor primary \([^ ]*\) .*/\1/p' "$known" 2>/dev/null || true)"
  echo "${last:-${PEERS%% *}}"
}

me="$POD_NAME$domain" lead="$(primary)" role="$1"
shift
case "$role" in
  redis)
    set -- redis-server "$config/redis.conf" --replica-announce-ip "$me" --port "$port" "$@"
    [ "$lead" = "$me" ] || set -- "$@" --replicaof "$lead" "$port"
    exec "$@"
    ;;
  sentinel)
    if [ ! -s "$known" ]; then # afterwards Sentinel keeps what it knows there
      until timeout 2 redis-cli -h "$lead" -p "$port" ping 2>/dev/null | grep -q 'PONG\|NOAUTH'; do sleep 1; lead="$(primary)"; done
      {
        cat "$config/sentinel.conf"
        echo "sentinel announce-ip $me"
        echo "sentinel monitor primary $lead $port 2"
        echo "sentinel down-after-milliseconds primary ${DOWN_AFTER:-5000}"
        echo "sentinel failover-timeout primary 15000"
        cat "$secrets/sentinel-auth.conf"
      } >"$known.new"
      mv "$known.new" "$known"
    fi
    exec redis-server "$known" --sentinel --port "$sentinel_port" "$@"
    ;;
esac

-- needs: base, batch, uniques
-- Pruning for jobs and entries alike.

-- Deletes up to `limit` each of unique keys whose period has ended, unused rates, and settled claims of parameters.
local function prune_expired(limit)
  local keys = call('ZRANGEBYSCORE', K .. 'u:x', '-inf', now, 'LIMIT', 0, limit)
  in_parts('HDEL', K .. 'u', keys)
  in_parts('HDEL', K .. 'u:at', keys)
  in_parts('ZREM', K .. 'u:x', keys)
  in_parts('ZREM', K .. 'rates', call('ZRANGEBYSCORE', K .. 'rates', '-inf', digits(now * 1000), 'LIMIT', 0, limit))
  local hour_ago = digits(now - 3600000)
  in_parts('ZREM', K .. 'raw-settled', call('ZRANGEBYSCORE', K .. 'raw-settled', '-inf', hour_ago, 'LIMIT', 0, limit))
end

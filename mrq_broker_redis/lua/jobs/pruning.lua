-- needs: base, batch, uniques
-- What says nothing any more, however jobs are kept: keys whose period has ended, rates, settled claims of parameters.

-- Deletes up to `limit` of each.
local function prune_quiet(limit)
  local keys = call('ZRANGEBYSCORE', K .. 'u:x', '-inf', now, 'LIMIT', 0, limit)
  in_parts('HDEL', K .. 'u', keys)
  in_parts('HDEL', K .. 'u:at', keys)
  in_parts('ZREM', K .. 'u:x', keys)
  in_parts('ZREM', K .. 'rates', call('ZRANGEBYSCORE', K .. 'rates', '-inf', digits(now * 1000), 'LIMIT', 0, limit))
  local hour_ago = digits(now - 3600000)
  in_parts('ZREM', K .. 'raw-settled', call('ZRANGEBYSCORE', K .. 'raw-settled', '-inf', hour_ago, 'LIMIT', 0, limit))
end

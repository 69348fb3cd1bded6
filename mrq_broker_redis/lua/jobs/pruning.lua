-- needs: base, recounting, batch, uniques
-- Pruning for jobs and entries alike.

-- Deletes up to `limit` each of unique keys whose period has ended, unused rates, and settled claims of parameters.
local function prune_expired(limit)
  local keys = call('ZRANGEBYSCORE', K .. 'u:x', '-inf', now, 'LIMIT', 0, limit)
  in_parts('HDEL', K .. 'u', keys)
  in_parts('HDEL', K .. 'u:at', keys)
  in_parts('ZREM', K .. 'u:x', keys)
  local quiet = call('ZRANGEBYSCORE', K .. 'rates', '-inf', digits(now * 1000), 'LIMIT', 0, limit)
  in_parts('ZREM', K .. 'rates', quiet)
  in_parts('HDEL', K .. 'spacings', quiet)
  local hour_ago = digits(now - 3600000)
  in_parts('ZREM', K .. 'raw-settled', call('ZRANGEBYSCORE', K .. 'raw-settled', '-inf', hour_ago, 'LIMIT', 0, limit))
end

-- Whether a queue has neither jobs, nor entries, nor parameters.
local function is_gone(queue)
  local keys = { index_of('q', queue), claimed_line(queue), K .. 'raw:' .. queue, K .. 'raw-lease:' .. queue }
  for _, rank in ipairs(ranks()) do
    keys[#keys + 1] = waiting_line(queue, rank)
  end
  return call('EXISTS', unpack(keys)) == 0 and on('HEXISTS', K .. 'parked-in', queue) == 0
end

-- Forgets the queues that are gone among the next `limit` names. queues-walk: the last name of this walk, from which the
-- next call continues; no key: it begins with the first name.
local function forget_queues(limit)
  if limit <= 0 then
    return
  end
  local after = call('GET', K .. 'queues-walk')
  local names = call('ZRANGEBYLEX', K .. 'queues', after and '(' .. after or '-', '+', 'LIMIT', 0, limit)
  local gone = {}
  for _, queue in ipairs(names) do
    if is_gone(queue) then
      gone[#gone + 1] = queue
    end
  end
  in_parts('ZREM', K .. 'queues', gone)
  in_parts('ZREM', K .. 'raw-names', gone)
  if #names == limit then
    call('SET', K .. 'queues-walk', names[#names])
  elseif after then
    call('DEL', K .. 'queues-walk')
  end
end

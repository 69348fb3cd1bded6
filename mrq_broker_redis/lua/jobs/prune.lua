-- needs: base, recounting, batch, slots, uniques, terms, records, pruning
-- Deletes expired jobs, and expired unique keys, rates, settled claims, state and metrics. Forgets names of queues.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { limit, { resolution of metrics, its length, how long they are kept, in ms } }
-- Answers the number of deleted jobs; where damaged jobs have expired, that number and the ids of these.

local limit = given[1]
local ids = on('ZRANGEBYSCORE', K .. 'x', '-inf', now, 'LIMIT', 0, limit)
local gone, damaged = 0, {}
for _, id in ipairs(ids) do
  local row = indexed_of(id)
  if not (row and row.q and row.h) then
    if call('EXISTS', key_of(id), data_of(id)) > 0 then
      damaged[#damaged + 1] = id
    else
      on('ZREM', K .. 'x', id)
    end
  elseif row.z == '' then
    delete(id, row, false)
    gone = gone + 1
  end
end
flush()
prune_expired(limit)
forget_queues(limit)
for _, member in ipairs(call('ZRANGEBYSCORE', K .. 'states:x', '-inf', now, 'LIMIT', 0, limit)) do
  local namespace, name = string.match(member, '^(%d+):(.*)$')
  local split = tonumber(namespace)
  namespace, name = string.sub(name, 1, split), string.sub(name, split + 1)
  call('HDEL', K .. 'state:' .. namespace, name)
  call('ZREM', K .. 'states:x', member)
end
for _, span in ipairs(given[2]) do
  local letter, length, kept = unpack(span)
  local first_kept = '(' .. digits(math.floor((now - kept) / length))
  local lines = K .. 'metrics:' .. letter
  for _, member in ipairs(on('ZRANGEBYSCORE', lines, '-inf', first_kept, 'LIMIT', 0, limit)) do
    call('UNLINK', K .. 'm:' .. letter .. ':' .. member)
    call('ZREM', lines, member)
  end
end
if #damaged > 0 then
  return { gone, damaged }
end
return gone

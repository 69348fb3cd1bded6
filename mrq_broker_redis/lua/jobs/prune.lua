-- needs: base, batch, slots, uniques, records, pruning
-- Deletes what has expired: jobs, and keys, rates, claims and figures that say nothing any more.
-- Arguments: { limit, for how long figures are kept in ms }.  Answers the number of jobs.

local limit = given[1]
local ids = call('ZRANGEBYSCORE', K .. 'x', '-inf', now, 'LIMIT', 0, limit)
local gone = 0
for _, id in ipairs(ids) do
  local row = places_of(id)
  if not row then
    call('ZREM', K .. 'x', id)
  elseif row.z == '' then
    delete(id, row, false)
    gone = gone + 1
  end
end
flush()
prune_quiet(limit)
for _, place in ipairs(call('ZRANGEBYSCORE', K .. 'states:x', '-inf', now, 'LIMIT', 0, limit)) do
  local namespace, name = string.match(place, '^(%d+):(.*)$')
  local split = tonumber(namespace)
  namespace, name = string.sub(name, 1, split), string.sub(name, split + 1)
  call('HDEL', K .. 'state:' .. namespace, name)
  call('ZREM', K .. 'states:x', place)
end
for _, minute in ipairs(call('ZRANGEBYSCORE', K .. 'minutes', '-inf', '(' .. math.floor((now - given[2]) / 60000), 'LIMIT', 0, limit)) do
  call('DEL', K .. 'm:' .. minute)
  call('ZREM', K .. 'minutes', minute)
end
return gone

-- needs: base, batch, limits, jobs
-- Deletes what has expired: jobs, and keys, rates and claims that say nothing any more.
-- Arguments: { limit }.  Answers the number of jobs.

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
for _, key in ipairs(call('ZRANGEBYSCORE', K .. 'u:x', '-inf', now, 'LIMIT', 0, limit)) do
  call('HDEL', K .. 'u', key)
  call('ZREM', K .. 'u:x', key)
end
local quiet = call('ZRANGEBYSCORE', K .. 'rates', '-inf', digits(now * 1000), 'LIMIT', 0, limit)
if #quiet > 0 then
  in_parts('ZREM', K .. 'rates', quiet)
end
for _, place in ipairs(call('ZRANGEBYSCORE', K .. 'states:x', '-inf', now, 'LIMIT', 0, limit)) do
  local namespace, name = string.match(place, '^(%d+):(.*)$')
  local split = tonumber(namespace)
  namespace, name = string.sub(name, 1, split), string.sub(name, split + 1)
  call('HDEL', K .. 'state:' .. namespace, name)
  call('ZREM', K .. 'states:x', place)
end
local settled = call('ZRANGEBYSCORE', K .. 'raw-settled', '-inf', digits(now - 3600000), 'LIMIT', 0, limit)
if #settled > 0 then
  in_parts('ZREM', K .. 'raw-settled', settled)
end
return gone

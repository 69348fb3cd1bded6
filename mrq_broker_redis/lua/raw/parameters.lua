-- needs: base, recounting, batch, slots
-- Raw queues: keys, leases and visits of their parameters.
-- raw:<queue>: a list, a set, or a sorted set by score.  raw-names: sorted set by name of raw queues.
-- raw-until:<queue>: sorted set, job id by the end of the lease.  raw-lease:<queue>: hash, job id to
-- { parameter, score or '', token, whether the claim gave it back } (msgpack).
-- raw-visit:<queue>: hash, parameter that stays in its set to "<claim number> <job id>:<token, or nothing>".
-- raw-settled: sorted set, "<job id>:<token>" of settled claims by time.

local function items_of(queue)
  return K .. 'raw:' .. queue
end

local function until_of(queue)
  return K .. 'raw-until:' .. queue
end

local function leases_of(queue)
  return K .. 'raw-lease:' .. queue
end

local function visits_of(queue)
  return K .. 'raw-visit:' .. queue
end

-- The lease of a claim; nil if it does not exist, or cannot be read.
local function lease_of(queue, id)
  local packed = call('HGET', leases_of(queue), id)
  local lease = packed and keys_in(packed)
  return lease and lease[1] and lease[3] and lease or nil
end

local function keep_lease(queue, id, lease, until_ms)
  call('HSET', leases_of(queue), id, cmsgpack.pack(lease))
  call('ZADD', until_of(queue), digits(until_ms), id)
end

local function drop_lease(queue, id)
  call('HDEL', leases_of(queue), id)
  call('ZREM', until_of(queue), id)
end

-- Moves a lease that cannot be read to the hash damaged:raw-lease:<queue>.
local function set_lease_aside(queue, id)
  local packed, name = call('HGET', leases_of(queue), id), 'damaged:raw-lease:' .. queue
  if packed then
    call('HSET', K .. name, id, packed)
    call('SADD', K .. 'damaged', name)
  end
  drop_lease(queue, id)
end

-- Whether the claim is the latest of its parameter, neither settled nor admitted: 'lease', 'visit' or nil.
local function holds(queue, param, id, token)
  local lease = lease_of(queue, id)
  if lease then
    return lease[3] == token and not lease[4] and 'lease' or nil
  end
  local visit = call('HGET', visits_of(queue), param)
  return visit and string.match(visit, '^%d+ (.*)$') == id .. ':' .. token and 'visit' or nil
end

-- Ends the visit: the parameter keeps its number of claims.
local function end_visit(queue, param)
  local visit = call('HGET', visits_of(queue), param)
  call('HSET', visits_of(queue), param, string.match(visit, '^%d+') .. ' ')
end

-- Ends a valid claim, because a job replaces its parameter; answers whether the claim was valid.
local function admit(queue, param, id, token)
  local held = holds(queue, param, id, token)
  if held == 'lease' then
    drop_lease(queue, id)
  elseif held == 'visit' then
    end_visit(queue, param)
  end
  return held ~= nil
end

local function seconds(ms)
  return string.format('%.3f', ms / 1000)
end

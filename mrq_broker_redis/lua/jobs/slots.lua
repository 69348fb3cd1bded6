-- needs: base, recounting, batch
-- The running jobs under each limit key, and the parked jobs.
-- slots: sorted set, "<job id> <limit key>" by the end of the lease.  running: hash, limit key to number of slots.
-- park:<limit key>: sorted set by name, "<rank + 4><since><due><job id>".  parked: hash, job id to limit key and
-- that name.  parked-keys: sorted set by name of the keys with parked jobs.  parked-in: hash, their number by queue.

local HORIZON_US = 60000000 -- RATE_HORIZON_MS of mrq_core.contract.rules

local function add_to_running(key, number)
  if (add_number(K .. 'running', key, number) or 0) < 0 then
    call('HDEL', K .. 'running', key)
  end
end

local function each_once(keys)
  local seen, once = {}, {}
  for _, key in ipairs(keys) do
    if not seen[key] then
      seen[key] = true
      once[#once + 1] = key
    end
  end
  return once
end

-- A claimed job holds a slot under each of its keys, to the end of its lease.
local function take_slots(id, keys, until_ms)
  for _, key in ipairs(each_once(keys)) do
    if call('ZADD', K .. 'slots', until_ms, id .. ' ' .. key) == 1 then
      add_to_running(key, 1)
    end
  end
end

local function free_slot(member, key)
  if call('ZREM', K .. 'slots', member) == 1 then
    add_to_running(key, -1)
    freed[key] = (freed[key] or 0) + 1
  end
end

local function free_slots(id, keys)
  for _, key in ipairs(each_once(keys)) do
    free_slot(id .. ' ' .. key, key)
  end
end

-- A bounded number of slots with expired leases. Their jobs keep their claims until another worker claims them.
local function free_expired_slots()
  local members = call('ZRANGEBYSCORE', K .. 'slots', '-inf', now, 'LIMIT', 0, 100)
  for _, member in ipairs(members) do
    free_slot(member, string.match(member, '^%S+ (.*)$'))
  end
  return #members
end

local function unpark(id)
  local parked = call('HGET', K .. 'parked', id)
  if not parked then
    return
  end
  local key, member = string.sub(parked, 53), string.sub(parked, 1, 51)
  call('HDEL', K .. 'parked', id)
  call('ZREM', K .. 'park:' .. key, member)
  if call('EXISTS', K .. 'park:' .. key) == 0 then
    on('ZREM', K .. 'parked-keys', key)
  end
end

-- Orders a parked job by another rank.
local function rerank_parked(id, rank)
  local parked = call('HGET', K .. 'parked', id)
  if parked then
    local key, member = string.sub(parked, 53), string.sub(parked, 1, 51)
    local moved = digits(rank + 4) .. string.sub(member, 2)
    call('ZREM', K .. 'park:' .. key, member)
    call('ZADD', K .. 'park:' .. key, 0, moved)
    call('HSET', K .. 'parked', id, moved .. ' ' .. key)
    note_rank(rank)
  end
end

-- Moves a waiting job to the parked jobs of a limit key, with its due time.
local function park(id, queue, rank, due, key)
  local member = string.format('%d%013.0f%013.0f', rank + 4, now, due) .. id
  call('ZREM', waiting_line(queue, rank), id)
  call('HSET', K .. 'j:' .. id, 'z', 'p')
  call('ZADD', K .. 'park:' .. key, 0, member)
  call('HSET', K .. 'parked', id, member .. ' ' .. key)
  on('ZADD', K .. 'parked-keys', 0, key)
  add_number(K .. 'parked-in', queue, 1)
  touch(queue)
end

-- The number of jobs whose starts a claim may reserve under a rate: even_us is the time of its key (see limits).
local function rate_room(even_us, interval, tolerance)
  local now_us = now * 1000
  local ahead = math.max(even_us, now_us) - tolerance - now_us
  return math.max(0, math.floor((HORIZON_US - ahead) / interval) + 1)
end

-- As rate_room, under the rate that the last claim has used; nil: none is known.
local function stored_rate_room(key)
  local spacing = call('HGET', K .. 'spacings', key)
  if spacing then
    local interval, tolerance = string.match(spacing, '^(%d+):(%d+)$')
    return rate_room(tonumber(call('ZSCORE', K .. 'rates', key) or 0), tonumber(interval), tonumber(tolerance))
  end
end

-- Releases the given number of jobs parked under a key: they return to their queues, due at once. is_of_slots: no more
-- than the rate of the key lets start within its horizon.
release_parked = function(key, number, is_of_slots)
  if number <= 0 then
    return 0
  end
  local line = K .. 'park:' .. key
  if is_of_slots and call('EXISTS', line) == 1 then
    number = math.min(number, stored_rate_room(key) or number)
    if number == 0 then
      return 0
    end
  end
  local members = call('ZRANGE', line, 0, number - 1)
  for _, member in ipairs(members) do
    local due, id = string.sub(member, 15, 27), string.sub(member, 28)
    local job = try('HMGET', K .. 'j:' .. id, 'q', 'k')
    call('ZREM', line, member)
    call('HDEL', K .. 'parked', id)
    if job[1] then
      call('HSET', K .. 'j:' .. id, 'z', 'w', 'd', due)
      call('ZADD', waiting_line(job[1], job[2] or '0'), due, id)
      if (add_number(K .. 'parked-in', job[1], -1) or 0) < 0 then
        call('HDEL', K .. 'parked-in', job[1])
      end
      touch(job[1])
      wake(job[1])
    end
  end
  if #members > 0 and call('EXISTS', line) == 0 then
    on('ZREM', K .. 'parked-keys', key)
  end
  return #members
end

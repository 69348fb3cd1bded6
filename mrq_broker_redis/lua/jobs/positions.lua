-- needs: base
-- The position of a waiting entry in its queue, and the use of limit keys; see slots and limits for the keys.

local MOST_NAMED, MOST_SLOTS = 20, 10000

-- Whether claims, or the release of parked jobs, find the entry where it belongs.
local function has_place(id, queue, rank, is_parked)
  if is_parked then
    local parked = call('HGET', K .. 'parked', id)
    return parked and call('ZSCORE', K .. 'park:' .. string.sub(parked, 53), string.sub(parked, 1, 51))
  end
  for _, known in ipairs(ranks()) do
    if known == tonumber(rank) then
      return call('ZSCORE', waiting_line(queue, rank), id)
    end
  end
end

-- The number of entries that are claimed before this entry, when it is due.
local function entries_ahead(id, queue, rank, due)
  local number = call('ZRANK', waiting_line(queue, rank), id) or 0
  local latest = digits(math.max(now, due))
  for _, other in ipairs(ranks()) do
    if other < rank then
      number = number + call('ZCOUNT', waiting_line(queue, other), '-inf', latest)
    end
  end
  return number
end

-- Slots have no index by limit key: a bounded number of slots is examined, the first to expire first.
local function use_of(key)
  local slots, held = K .. 'slots', tonumber(try('HGET', K .. 'running', key) or 0) or 0
  local holders, expired, running = {}, 0, 0
  for first = 0, MOST_SLOTS - 1, MANY do
    local found = call('ZRANGE', slots, first, first + MANY - 1, 'WITHSCORES')
    for index = 1, #found, 2 do
      local id, of = string.match(found[index], '^(%S+) (.*)$')
      if of == key and tonumber(found[index + 1]) <= now then
        expired = expired + 1
      elseif of == key then
        running = running + 1
        holders[running] = id
      end
    end
    if running + expired >= held then
      break
    end
  end
  table.sort(holders)
  local waiters, line = {}, K .. 'park:' .. key
  for index, member in ipairs(call('ZRANGE', line, 0, MOST_NAMED - 1)) do
    waiters[index] = string.sub(member, 28)
  end
  local named = {}
  for index = 1, math.min(MOST_NAMED, #holders) do
    named[index] = holders[index]
  end
  local even_us = call('ZSCORE', K .. 'rates', key)
  local even_at = even_us and digits(math.ceil(tonumber(even_us) / 1000)) or false
  return { key, held - expired, named, call('ZCARD', line), waiters, even_at }
end

-- row: q queue, k rank, d due time, b as in records, l limit keys (msgpack); is_parked: whether the entry is parked.
-- Answers { ahead, due or nil, limit key and since when parked or nil, time that a rate allows or nil, uses of keys }.
local function position_of(id, row, is_parked)
  local ahead, key, since, due
  local parked = is_parked and call('HGET', K .. 'parked', id)
  if parked then
    key, since = string.sub(parked, 53), string.sub(parked, 2, 14)
    ahead = call('ZRANK', K .. 'park:' .. key, string.sub(parked, 1, 51)) or 0
  else
    due = row.d or digits(now)
    ahead = entries_ahead(id, row.q, tonumber(row.k or 0), tonumber(due))
  end
  local uses, seen = {}, {}
  local function add(name)
    if name and not seen[name] then
      seen[name] = true
      uses[#uses + 1] = use_of(name)
    end
  end
  for _, name in ipairs(row.l and cmsgpack.unpack(row.l) or {}) do
    add(name)
  end
  add(key)
  local allowed = row.b and tonumber(row.b) > now and row.b
  return { ahead, due or false, key or false, since or false, allowed or false, uses }
end

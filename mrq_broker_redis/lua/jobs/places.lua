-- needs: base, recounting, batch, slots
-- Whether an entry is where claims find it: a server may have evicted the sorted set that it belongs to, and an
-- administrator may have deleted it. A key of another type is left to the check.

local has_parked, lacks_key = false, false
local read_lines = {} -- the limit keys whose sorted sets were read

local function is_table(answer)
  return type(answer) == 'table' -- an error: the key has another type
end

-- Whether a sorted set has the member, or is none.
local function has_member(key, member)
  local score = try('ZSCORE', key, member)
  return score and true
end

-- Adds to the hash of parked jobs those of one limit key, once in a script.
local function read_line(key)
  if read_lines[key] then
    return
  end
  read_lines[key] = true
  local members = try('ZRANGE', K .. 'park:' .. key, 0, -1)
  for _, member in ipairs(members.err and {} or members) do
    local id = string.sub(member, 28)
    if call('HEXISTS', K .. 'parked', id) == 0 then
      call('HSET', K .. 'parked', id, member .. ' ' .. key)
    end
  end
end

local is_whole_hash -- nil: not known

-- Makes the hash of parked jobs whole again, from the sorted sets of the limit keys, if it has fewer jobs than these.
-- packed: the limit keys of the entry (msgpack), if it has any.
local function read_parked_lines(packed)
  if is_whole_hash == nil then
    local keys, number = on('ZRANGE', K .. 'parked-keys', 0, -1), 0
    for _, key in ipairs(keys) do
      local size = try('ZCARD', K .. 'park:' .. key)
      number = number + (is_table(size) and 0 or size)
    end
    is_whole_hash = call('HLEN', K .. 'parked') >= number
    for _, key in ipairs(is_whole_hash and {} or keys) do
      read_line(key)
    end
  end
  for _, key in ipairs(packed and keys_in(packed) or {}) do
    if not has_member(K .. 'parked-keys', key) then -- lost as well
      read_line(key)
    end
  end
end

-- The limit key under which a job is parked, in the hash and in the sorted set of the key; nil if it is not in both.
local function parked_key_of(id)
  local parked = call('HGET', K .. 'parked', id)
  local key = parked and string.sub(parked, 53)
  return key and has_member(K .. 'park:' .. key, string.sub(parked, 1, 51)) and key
end

-- Whether a parked job can be released.
local function is_parked(id, packed)
  if is_table(try('HLEN', K .. 'parked')) then
    return true
  end
  has_parked = true
  if not parked_key_of(id) then
    read_parked_lines(packed)
  end
  local key = parked_key_of(id)
  lacks_key = lacks_key or (key and not on('ZSCORE', K .. 'parked-keys', key))
  return key
end

local known_ranks = {} -- before the repair
for _, rank in ipairs(ranks()) do
  known_ranks[rank] = true
end

-- Whether claims find a waiting entry: they do not read the sorted set of a rank that is not known.
local function is_waiting(id, queue, rank)
  return known_ranks[tonumber(rank)] and has_member(waiting_line(queue, rank), id)
end

-- Gives a waiting entry its place.
local function restore_waiting(id, queue, rank, due)
  add_later(waiting_line(queue, rank), due, id)
  wake(queue, due)
end

-- Ends the parking of an entry that has lost its place.
local function end_parking(id, queue)
  if call('HEXISTS', K .. 'parked', id) == 1 then
    sum_later(K .. 'parked-in', queue, -1)
  end
  unpark(id)
end

-- Notes what claims need besides the sorted sets: an entry that is claimed or parked waits again later.
local function note_entry(queue, rank)
  if tonumber(rank) then
    note_rank(rank)
  end
  add_later(K .. 'queues', 0, queue)
  touch(queue)
end

-- Whether the numbers of parked jobs by queue differ from the parked jobs.
local function are_miscounted()
  local found, number = numbers_in(K .. 'parked-in'), 0
  for index = 2, #found, 2 do
    number = number + tonumber(found[index])
  end
  return number ~= call('HLEN', K .. 'parked')
end

-- Writes the changes, and counts the parked jobs anew where their keys or numbers are lost.
local function flush_places()
  flush()
  if has_parked and (lacks_key or are_miscounted()) then
    for _, name in ipairs({ 'parked-in', 'parked-keys' }) do
      call('DEL', K .. name)
      REMAKE[name](K .. name)
    end
  end
end

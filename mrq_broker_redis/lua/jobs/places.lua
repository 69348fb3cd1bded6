-- needs: base, recounting, batch, slots
-- Whether an entry is where claims find it: a server may have evicted the sorted set that it belongs to, and an
-- administrator may have deleted it.

local are_lines_read, has_parked, lacks_key = false, false, false

-- Makes the hash of parked jobs whole again, from the sorted sets of the limit keys. packed: the limit keys of the
-- entry (msgpack), if it has any.
local function read_parked_lines(packed)
  local keys = are_lines_read and {} or call('ZRANGE', K .. 'parked-keys', 0, -1)
  for _, key in ipairs(packed and keys_in(packed) or {}) do
    keys[#keys + 1] = key
  end
  are_lines_read = true
  for _, key in ipairs(keys) do
    for _, member in ipairs(call('ZRANGE', K .. 'park:' .. key, 0, -1)) do
      local id = string.sub(member, 28)
      if call('HEXISTS', K .. 'parked', id) == 0 then
        call('HSET', K .. 'parked', id, member .. ' ' .. key)
      end
    end
  end
end

-- The limit key under which a job is parked, in the hash and in the sorted set of the key; nil if it is not in both.
local function parked_key_of(id)
  local parked = call('HGET', K .. 'parked', id)
  local key = parked and string.sub(parked, 53)
  return key and call('ZSCORE', K .. 'park:' .. key, string.sub(parked, 1, 51)) and key
end

-- Whether a parked job can be released.
local function is_parked(id, packed)
  has_parked = true
  if not parked_key_of(id) then
    read_parked_lines(packed)
  end
  local key = parked_key_of(id)
  lacks_key = lacks_key or not key or not on('ZSCORE', K .. 'parked-keys', key)
  return key
end

local known_ranks = {} -- before the repair
for _, rank in ipairs(ranks()) do
  known_ranks[rank] = true
end

-- Whether claims find a waiting entry: they do not read the sorted set of a rank that is not known.
local function is_waiting(id, queue, rank)
  return known_ranks[tonumber(rank)] and call('ZSCORE', waiting_line(queue, rank), id)
end

-- Gives a waiting entry its place.
local function restore_waiting(id, queue, rank, due)
  add_later(waiting_line(queue, rank), due, id)
  note_rank(rank)
  wake(queue, due)
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

-- needs: base, recounting, batch, slots, limits, uniques, terms, records
-- Restores the entries of jobs whose keys were evicted or deleted by hand: the hash of a job says which entry it has.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { id, ... }
-- Answers the ids of the jobs whose entry was restored.

local are_lines_read, has_parked, lacks_key = false, false, false

-- Makes the hash of parked jobs whole again, from the sorted sets of the limit keys.
local function read_parked_lines(row)
  local keys = are_lines_read and {} or call('ZRANGE', K .. 'parked-keys', 0, -1)
  for _, key in ipairs(row.l and keys_in(row.l) or {}) do
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

local function has_entry(id, row)
  if row.z ~= 'p' then
    local line = line_of(row)
    return not line or call('ZSCORE', line, id)
  end
  has_parked = true
  if not parked_key_of(id) then
    read_parked_lines(row)
  end
  local key = parked_key_of(id)
  lacks_key = lacks_key or not key or not on('ZSCORE', K .. 'parked-keys', key)
  return key
end

-- Whether the numbers of parked jobs by queue differ from the parked jobs.
local function are_miscounted()
  local found, number = numbers_in(K .. 'parked-in'), 0
  for index = 2, #found, 2 do
    number = number + tonumber(found[index])
  end
  return number ~= call('HLEN', K .. 'parked')
end

local known_ranks = {} -- before the repair
for _, rank in ipairs(ranks()) do
  known_ranks[rank] = true
end

-- Whether no claim reads the sorted set of the entry, because its rank is not known.
local function lacks_rank(row)
  return row.z == 'w' and not known_ranks[tonumber(row.k)]
end

local repaired = {}
for _, id in ipairs(given) do
  local row = indexed_of(id)
  if row and row.q and row.z ~= '' then
    if lacks_rank(row) or not has_entry(id, row) then
      repaired[#repaired + 1] = id
      if row.z == 'p' then -- the next claim parks it again, if it has to
        unpark(id)
        row.z, row.d = 'w', digits(now)
        call('HSET', key_of(id), 'z', row.z, 'd', row.d)
      end
      add_later(line_of(row), row.d or digits(now), id)
      if row.z == 'w' then
        note_rank(row.k)
        wake(row.q, row.d)
      end
    end
    add_later(K .. 'queues', 0, row.q)
    touch(row.q)
  end
end
flush()
if has_parked and (lacks_key or are_miscounted()) then
  for _, name in ipairs({ 'parked-in', 'parked-keys' }) do
    call('DEL', K .. name)
    REMAKE[name](K .. name)
  end
end
return repaired

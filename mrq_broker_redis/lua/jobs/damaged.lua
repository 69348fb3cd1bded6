-- needs: base, recounting
-- A job whose keys cannot be read: what the structures beside them know of the job.

-- The first of the names whose index has the job; nil for none.
local function indexed_name(id, kind, names)
  for _, name in ipairs(names) do
    if call('ZSCORE', index_of(kind, name), id) then
      return name
    end
  end
end

local function paths()
  local found = {}
  for _, field in ipairs(on('HKEYS', K .. 'n:h')) do
    found[#found + 1] = string.match(field, '^%S+ (.*)$')
  end
  return found
end

-- The hash of a job as a table; empty if the key has another type. And its values in order.
local function hash_of(id)
  local values, row = try('HGETALL', key_of(id)), {}
  if values.err then
    return row, {}
  end
  for index = 1, #values, 2 do
    row[values[index]] = values[index + 1]
  end
  return row, values
end

-- The data of a job; false if the key has another type, or is gone.
local function string_of(id)
  local data = try('GET', data_of(id))
  return type(data) == 'string' and data
end

-- Proves that neither key has changed since.
local function stamp_of(id)
  local _, values = hash_of(id)
  local types = call('TYPE', key_of(id)).ok .. ' ' .. call('TYPE', data_of(id)).ok
  return redis.sha1hex(cmsgpack.pack({ types, values, string_of(id) }))
end

-- Sets rank, state and due time of the entry, as the sorted set that has the entry knows them.
local function note_entry(id, row)
  for _, rank in ipairs(ranks()) do
    local due = call('ZSCORE', waiting_line(row.q, rank), id)
    if due then
      row.k, row.z, row.d = digits(rank), 'w', due
      return
    end
  end
  local lease = call('ZSCORE', claimed_line(row.q), id)
  if lease then
    row.z, row.d = 'c', lease
  elseif call('HEXISTS', K .. 'parked', id) == 1 then
    row.z = 'p'
  else
    row.z = ''
  end
end

-- The fields of a job from which the structures beside it follow; nil if no index has the job. Fields that the indexes
-- know come from them, the others from the hash.
local function structure_of(id)
  local hash = hash_of(id)
  local row = {
    q = indexed_name(id, 'q', { hash.q }) or indexed_name(id, 'q', call('ZRANGE', K .. 'queues', 0, -1)),
    h = indexed_name(id, 'h', { hash.h }) or indexed_name(id, 'h', paths()),
    s = indexed_name(id, 's', STATUSES),
  }
  if not (row.q and row.h and row.s) then
    return nil
  end
  row.k, row.x = tonumber(hash.k) and hash.k or '0', on('ZSCORE', K .. 'x', id) or nil
  for _, name in ipairs({ 'g', 'y', 'l', 'u', 'm', 'f', 'w' }) do
    row[name] = hash[name]
  end
  row.g = call('EXISTS', K .. 'e:' .. id) == 1 and row.g or nil
  note_entry(id, row)
  return row
end

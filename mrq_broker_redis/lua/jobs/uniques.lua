-- needs: base
-- Unique keys and their holders.
-- u: hash, unique key to "<job id><expiry or nothing>".  u:x: sorted set of keys held for a period, by its end.
-- u:at: hash, unique key to the time of its reservation; see entries.
-- u:r: hash, key until `record` to the id of its job.

-- The holder of the key; nil: the key is free. An expired period is deleted, so that it cannot end a later one.
local function holder_of(key)
  local value = call('HGET', K .. 'u', key)
  if not value then
    return nil
  end
  local expiry = tonumber(string.sub(value, 25))
  if expiry and expiry <= now then
    call('HDEL', K .. 'u', key)
    call('HDEL', K .. 'u:at', key)
    call('ZREM', K .. 'u:x', key)
    return nil
  end
  return string.sub(value, 1, 24)
end

-- Frees the key if the job holds it; answers whether it did.
local function release(id, key)
  local value = call('HGET', K .. 'u', key)
  if not value or string.sub(value, 1, 24) ~= id then
    return false
  end
  call('HDEL', K .. 'u', key)
  call('ZREM', K .. 'u:x', key)
  return true
end

local function reserve(id, key, period)
  if period then
    call('HSET', K .. 'u', key, id .. digits(now + period))
    call('ZADD', K .. 'u:x', digits(now + period), key)
  else
    call('HSET', K .. 'u', key, id)
  end
end

-- The holder of a key until `record`; nil: the key is free. The key of an expired record is free.
local function record_holder_of(key)
  local id = call('HGET', K .. 'u:r', key)
  local row = id and call('HMGET', K .. 'j:' .. id, 's', 'x')
  if not row or not row[1] or (row[2] and tonumber(row[2]) <= now) then
    return nil
  end
  return id
end

-- Frees a key until `record` if the job holds it.
local function release_record_key(id, key)
  if call('HGET', K .. 'u:r', key) == id then
    call('HDEL', K .. 'u:r', key)
  end
end

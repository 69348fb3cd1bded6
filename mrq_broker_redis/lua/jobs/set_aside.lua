-- needs: base, recounting, batch, slots, uniques, terms, records, damaged
-- Writes a damaged job anew, if its keys are as they were read. A key of another type is renamed, and keeps its value.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { id, stamp, row, params, queue }: the fields of the job, its params with their
--   length, and the queue in which a claim has met the job, or ''
-- Answers 1, or 0 if the keys have changed.

local id, stamp, row, params, queue = given[1], given[2], given[3], given[4], given[5]
if stamp_of(id) ~= stamp then
  return 0
end
local before, hash = structure_of(id), hash_of(id)
for letter, kind in pairs({ j = 'hash', r = 'string' }) do
  local key = K .. letter .. ':' .. id
  local found = call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then
    local name = 'damaged:' .. letter .. ':' .. id
    call('RENAME', key, K .. name)
    call('SADD', K .. 'damaged', name)
  end
end
if row.z == '' and hash.u and (hash.m == 'queued' or hash.m == 'done') then
  release(id, hash.u)
elseif not hash.q then -- the hash is lost, and with it the name of the key
  for _, name in ipairs({ 'u', 'u:r' }) do
    local held = call('HGETALL', K .. name)
    for index = 1, #held, 2 do
      if string.sub(held[index + 1], 1, 24) == id then
        call('HDEL', K .. name, held[index])
        call('ZREM', K .. 'u:x', held[index])
      end
    end
  end
end
if before then
  move_job(id, before, row)
else -- no index has the job
  for _, rank in ipairs(ranks()) do
    call('ZREM', waiting_line(queue, rank), id)
  end
  call('ZREM', claimed_line(queue), id)
  move_job(id, nil, row)
end
call('HDEL', key_of(id), 'b')
write_row(id, row, (tonumber(hash.v) or 0) + 1, params)
flush()
return 1

-- needs: base, recounting, batch, slots, limits, uniques, entries, trees, claiming
-- Claims due entries for a worker.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: the arguments of claiming
-- Answers as claiming. A suspect: id, and the fields in the order of ENTRY_FIELDS. A claimed entry: { queue, rank,
-- version, claims, 1 if the rest follows, id, limit keys, unique key, until, period in ms }.
-- Unique keys do not change: they are freed once the record of the job is written.

local entries, tokens = {}, {}

consider_suspect = function(id, queue, chosen)
  local row = try('HMGET', entry_key(id), unpack(ENTRY_FIELDS))
  local keys = row[7] and keys_in(row[7])
  if not is_whole(row) then
    call('DEL', entry_key(id)) -- a repair makes it anew from the record
    call('ZREM', claimed_line(queue), id)
  elseif keys and not has_slots(id, keys) then
    put_off(id, queue)
  elseif not leave_suspects then
    chosen[#chosen + 1] = id
    chosen[#chosen + 1] = row
  end
end

local function token_after(claims)
  local token = tokens[claims]
  if not token then
    token = string.format('%d.%s', tonumber(claims or 0) + 1, nonce)
    tokens[claims] = token
  end
  return token
end

take = function(id, key, queue, rank)
  local row = try('HMGET', key, 'q', 'k', 'v', 'n', 'o')
  if not (row[1] and tonumber(row[3] or 1) and tonumber(row[4] or 0)) then
    call('DEL', key)
    return GONE -- the entry was deleted or changed by hand; a repair makes it anew from the record
  end
  row[6] = id
  if row[5] then
    local more = call('HMGET', key, 'l', 'b', 'u', 'm', 'p')
    local keys = more[1] and keys_in(more[1])
    if (more[1] and not keys) or (more[2] and not tonumber(more[2])) then
      call('DEL', key)
      return GONE
    end
    if not pass_limits(id, key, queue, rank, keys, more[2]) then
      return BLOCKED
    end
    row[7], row[8], row[9], row[10] = more[1], more[3], more[4], more[5]
  end
  call('HSET', key, 't', token_after(row[4]), 'w', worker, 'd', until_ms)
  entries[number + 1] = row
  return TAKEN
end

local chosen = suspects()
if #chosen > 0 then
  return { 'suspects', digits(now), chosen, damaged }
end
return taken(entries, take_due())

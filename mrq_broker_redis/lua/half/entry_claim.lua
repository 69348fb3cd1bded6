-- needs: base, batch, slots, limits, uniques, entries, trees, claiming
-- Claims due entries for a worker.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: the arguments of claiming
-- Answers as claiming. A suspect: id, and the fields in the order of ENTRY_FIELDS. A claimed entry: { queue, rank,
-- version, claims, 1 if the rest follows, id, limit keys, unique key, until, period in ms }.
-- Unique keys do not change: they are freed once the record of the job is written.

local entries, tokens = {}, {}

consider_suspect = function(id, queue, chosen)
  local row = call('HMGET', entry_key(id), unpack(ENTRY_FIELDS))
  if not row[1] then
    call('ZREM', claimed_line(queue), id)
  elseif row[7] and not has_slots(id, cmsgpack.unpack(row[7])) then
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
  local row = call('HMGET', key, 'q', 'k', 'v', 'n', 'o')
  if not row[1] then
    return GONE -- the entry was deleted by hand
  end
  row[6] = id
  if row[5] then
    local more = call('HMGET', key, 'l', 'b', 'u', 'm', 'p')
    if not pass_limits(id, key, queue, rank, more[1], more[2]) then
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
  return { 'suspects', digits(now), chosen }
end
return taken(entries, take_due())
